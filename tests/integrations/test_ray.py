"""Ray: clusters of several nodes on this machine, whose workers and nodes are killed. Rows are complete, and once."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # read when Ray is imported
import ray
from conftest import GOLDEN, write_sentence_model
from pyarrow import parquet
from ray.cluster_utils import Cluster

import ufbert
from ufbert import InputError
from ufbert.scale.ray import embed_dataset

COMMAND = [sys.executable, "-m", "ufbert"]
ROWS = 30_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_sentence_model(tmp_path_factory.mktemp("ray") / "model"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    for number in range(3):
        ids = range(number * ROWS // 3, (number + 1) * ROWS // 3)
        table = pa.table({"id": list(ids), "text": [f"{'abcdefgh'[i % 8]} cat {i}" for i in ids]})
        parquet.write_table(table, folder / f"in-{number}.parquet")
    return folder


@pytest.fixture(scope="module")
def head():
    """A head without CPUs; its nodes are processes of this machine, which may be slow to start."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.ones = []
    yield cluster
    cluster.shutdown()


@pytest.fixture
def cluster(head):
    """The head with two nodes of one CPU each."""
    while len(head.ones) < 2:
        head.ones.append(head.add_node(wait=False, num_cpus=1))
    head.wait_for_nodes(timeout=180)
    yield head
    ray.shutdown()


def command(rows, model, output, *more):
    words = ["embed", "--input", rows / "in-*.parquet", "--column", "text", "--id", "id", "--model", model]
    words += ["--output", output, "--part-rows", 2_500, "--quiet", *more]
    return [*COMMAND, *map(str, words)]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def finished(output):
    return len(list(output.glob("_parts/[0-9]*.json")))


def workers():
    """Processes of Ray that are running a part."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if line.split()[1].startswith("ray::_run_part")]


def test_parts_survive_a_killed_worker_and_a_killed_node(cluster, rows, model, tmp_path):
    subprocess.run(command(rows, model, tmp_path / "alone"), check=True)
    process = subprocess.Popen(command(rows, model, tmp_path / "ray", "--ray", cluster.address))
    killed = []
    while process.poll() is None:
        done = finished(tmp_path / "ray")
        if not killed and done >= 2 and (running := workers()):
            os.kill(running[0], signal.SIGKILL)
            killed.append("worker")
        elif len(killed) == 1 and done >= 5:
            cluster.remove_node(cluster.ones.pop(), allow_graceful=False)
            killed.append("node")
        time.sleep(0.02)
    assert process.returncode == 0 and killed == ["worker", "node"]
    assert contents(tmp_path / "ray") == contents(tmp_path / "alone")
    ids = parquet.read_table(tmp_path / "ray")["id"].to_pylist()
    assert sorted(ids) == list(range(ROWS))


def test_a_job_goes_on_from_one_machine_to_a_cluster(cluster, rows, model, tmp_path):
    subprocess.run(command(rows, model, tmp_path / "alone"), check=True)
    subprocess.run(command(rows, model, tmp_path / "both", "--shard", "1/3"), check=True)
    process = subprocess.Popen(command(rows, model, tmp_path / "both", "--resume", "--ray", cluster.address))
    while finished(tmp_path / "both") < 7:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    subprocess.run(command(rows, model, tmp_path / "both", "--resume", "--ray", cluster.address), check=True)
    assert contents(tmp_path / "both") == contents(tmp_path / "alone")


def test_an_exception_in_one_row_ends_the_job_by_name_or_gives_null(cluster, model, tmp_path):
    texts = [f"a cat {i}" for i in range(3_000)]
    texts[1_234] = None
    parquet.write_table(pa.table({"id": list(range(3_000)), "text": texts}), tmp_path / "in-0.parquet")
    words = command(tmp_path, model, tmp_path / "out", "--ray", cluster.address)
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 1 and "in-0.parquet: row 1234: expected a text, found null" in result.stderr
    subprocess.run(
        command(tmp_path, model, tmp_path / "null", "--ray", cluster.address, "--on-error", "null"), check=True
    )
    table = parquet.read_table(tmp_path / "null")
    assert table["id"].filter(table["embedding"].is_null()).to_pylist() == [1_234] and table.num_rows == 3_000
    assert json.loads((tmp_path / "null" / "_manifest.json").read_text())["failed"] == 1


def test_other_verbs_and_wrong_addresses(cluster, tmp_path):
    (tmp_path / "a.csv").write_text("text\na cat\nb\n")
    words = ["classify", "--input", "a.csv", "--column", "text", "--output", "out", "--model"]
    words = [*COMMAND, *words, str(GOLDEN / "pipelines" / "text-classification")]
    subprocess.run([*words, "--ray", cluster.address], cwd=tmp_path, check=True)
    expected = ufbert.TextClassifier(GOLDEN / "pipelines" / "text-classification")(["a cat", "b"])
    found = parquet.read_table(tmp_path / "out").to_pylist()
    assert [row["label"] for row in found] == [label["label"] for label in expected]
    many = subprocess.run([*words, "--resume", "--ray", cluster.address, "--threads", "2"], cwd=tmp_path)
    assert many.returncode == 0  # nothing is left to do
    words[words.index("out")] = "other"
    many = subprocess.run(
        [*words, "--ray", cluster.address, "--threads", "2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert many.returncode == 1 and "expected at most the CPUs of a node, 1, got 2" in many.stderr


def connect(cluster):
    ray.init(cluster.address, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False


def test_a_dataset_gets_a_column_that_other_programs_read(cluster, rows, model, tmp_path):
    connect(cluster)
    dataset = embed_dataset(ray.data.read_parquet(str(rows)), column="text", model=model, normalize_embeddings=True)
    dataset.write_parquet(str(tmp_path / "out"))
    table = parquet.read_table(tmp_path / "out").sort_by("id")
    assert table["id"].to_pylist() == list(range(ROWS))
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 12)
    expected = ufbert.SentenceEncoder(model).encode(table["text"].to_pylist(), normalize_embeddings=True)
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), expected)


def test_a_dataset_survives_a_killed_actor_and_a_killed_node(cluster, rows, model, tmp_path):
    third = cluster.add_node(wait=False, num_cpus=1)
    cluster.wait_for_nodes(timeout=180)
    connect(cluster)
    flags = tmp_path / "flags"
    flags.mkdir()

    def die(table):  # runs beside the actors: the first batch of rows ends its process, with what it has read
        if not (flags / "worker").exists():
            (flags / "worker").touch()
            os._exit(1)
        return table

    dataset = ray.data.read_parquet(str(rows), override_num_blocks=30).map_batches(die, batch_format="pyarrow")
    dataset = embed_dataset(dataset, model=model, batch_size=250)
    seen = []
    for batch in dataset.iter_batches(batch_size=500, batch_format="pyarrow"):
        seen.append(batch)
        if len(seen) == 5:
            cluster.remove_node(third, allow_graceful=False)
    table = pa.concat_tables(seen).sort_by("id")
    assert len(seen) > 5 and (flags / "worker").exists()
    assert table["id"].to_pylist() == list(range(ROWS))
    expected = ufbert.SentenceEncoder(model).encode(table["text"].to_pylist())
    np.testing.assert_array_equal(
        np.stack(table["embedding"].combine_chunks().to_numpy(zero_copy_only=False)), expected
    )


def test_a_dataset_with_a_row_that_has_no_text(cluster, model):
    connect(cluster)
    dataset = ray.data.from_arrow(pa.table({"id": [0, 1, 2], "text": ["a", None, "b"]}))
    with pytest.raises(Exception, match="row 1: expected a text, found null"):
        embed_dataset(dataset, model=model).materialize()
    rows = embed_dataset(dataset, model=model, on_error="null").take_all()
    assert {row["id"]: row["embedding"] is None for row in rows} == {0: False, 1: True, 2: False}


def test_actors_that_would_leave_no_cpu_are_refused(cluster, model):
    connect(cluster)
    dataset = ray.data.from_items([{"text": "a"}])
    for settings in ({"concurrency": 2}, {"concurrency": (2, 4)}, {"num_cpus": 2}):
        with pytest.raises(InputError, match="one has to stay free to read and write"):
            embed_dataset(dataset, model=model, **settings)
    with pytest.raises(InputError, match="expected options of SentenceEncoder"):
        embed_dataset(dataset, model=model, batch=5)
