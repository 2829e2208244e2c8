"""Parts run: whole files and records, whatever happens between."""

import json
import os

import numpy as np
import pyarrow
import pyarrow as pa
import pytest
from conftest import write_sentence_model
from pyarrow import parquet

import ufbert
from ufbert import InputError
from ufbert.scale import Columns, Runner, Settings, Shard, Worker, plan


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_sentence_model(tmp_path_factory.mktemp("run") / "model"))


def job_of(folder, model, texts, **settings):
    parquet.write_table(pa.table({"text": pa.array(texts, pa.string())}), folder / "a.parquet", row_group_size=7)
    settings = Settings("embed", model, **settings)
    job = plan(f"{folder}/a.parquet", Columns(("text",)), folder / "out", settings, "parquet", 10, "1")
    job.begin(Shard(), resume=True)
    return job


def test_a_part_and_its_record(tmp_path, model):
    texts = [f"text {i}" for i in range(25)]
    job = job_of(tmp_path, model, texts)
    run, seen = Runner(job, Worker(job.settings)), []
    records = [run(part, seen.append) for part in job.parts]
    assert seen == [10, 10, 5] and job.finish()
    table = parquet.read_table(tmp_path / "out")
    assert table["row"].to_pylist() == list(range(25))
    expected = ufbert.SentenceEncoder(model).encode(texts)
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), expected)
    assert records[1] == job.record(job.parts[1])
    assert {key: records[1][key] for key in ("file", "input", "first_row", "rows", "failed")} == {
        "file": "part-00001.parquet", "input": "a.parquet", "first_row": 10, "rows": 10, "failed": 0,
    }  # fmt: skip
    metadata = parquet.read_schema(tmp_path / "out" / "part-00001.parquet").metadata
    assert metadata[b"ufbert.model_sha256"].decode() == job.model["sha256"]
    assert metadata[b"ufbert.first_row"] == b"10" and metadata[b"ufbert.normalized"] == b"false"


def test_any_order_of_parts_gives_the_same_bytes(tmp_path, model):
    job = job_of(tmp_path, model, [f"text {i}" for i in range(35)])
    run = Runner(job, Worker(job.settings))
    before = [run(part)["sha256"] for part in job.parts]
    again = [run(part)["sha256"] for part in reversed(job.parts)]
    assert again == before[::-1]


def test_a_row_is_named_where_it_stands(tmp_path, model):
    job = job_of(tmp_path, model, [*["a"] * 13, None, "b"])
    run = Runner(job, Worker(job.settings))
    run(job.parts[0])
    with pytest.raises(InputError, match=r"a\.parquet: row 13: expected a text, found null"):
        run(job.parts[1])
    assert job.record(job.parts[1]) is None
    assert sorted(os.listdir(job.output)) == ["_job.json", "_parts", "part-00000.parquet"]


@pytest.mark.skipif(int(pyarrow.__version__.split(".")[0]) < 26, reason="pyarrow reads no null lists before 26")
def test_rows_without_a_result_are_counted(tmp_path, model):
    job = job_of(tmp_path, model, ["a", None, None, "b " * 100], on_error="null")
    record = Runner(job, Worker(job.settings))(job.parts[0])
    assert (record["failed"], record["truncated"]) == (2, 1)
    assert record["first_failed"] == {"row": 1, "why": "expected a text, found null"}


def test_what_a_killed_run_left_is_removed(tmp_path, model):
    job = job_of(tmp_path, model, ["a"])
    (job.output / ".part-00000.parquet.99999.part").write_bytes(b"half")
    Runner(job, Worker(job.settings))(job.parts[0])
    assert sorted(os.listdir(job.output)) == ["_job.json", "_parts", "part-00000.parquet"]


def test_a_full_disk_leaves_no_half_part(tmp_path, model, monkeypatch):
    job = job_of(tmp_path, model, ["a"])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Runner(job, Worker(job.settings))(job.parts[0])
    assert os.listdir(job.output) == ["_job.json"] and json.loads((job.output / "_job.json").read_text())


def test_names_that_are_not_utf8(tmp_path, model):
    name = os.fsdecode(b"caf\xe9.jsonl")
    (tmp_path / name).write_text('{"text": "a"}\n')
    job = plan(
        f"{tmp_path}/*.jsonl", Columns(("text",)), tmp_path / "out", Settings("embed", model), "parquet", 10, "1"
    )
    for _ in range(2):
        job.begin(Shard(), resume=True)
        assert Runner(job, Worker(job.settings))(job.parts[0])["input"] == name
    assert job.finish()
    assert parquet.read_schema(tmp_path / "out" / "part-00000.parquet").metadata[b"ufbert.input"] == rb"caf\udce9.jsonl"


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_ids_that_do_not_fit_are_named_with_their_rows(tmp_path, model, format):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "n": 1}\n{"text": "b", "n": "x"}\n')
    settings = Settings("embed", model)
    job = plan(f"{tmp_path}/a.jsonl", Columns(("text",), "n"), tmp_path / "out", settings, format, 10, "1")
    job.begin(Shard(), resume=True)
    with pytest.raises(InputError, match=r"a\.jsonl: rows 0 to 1: n: expected ids of type int64"):
        Runner(job, Worker(settings))(job.parts[0])


def test_two_runs_of_one_part(tmp_path, model):
    """The second takes what the first is writing for left behind: the first says so, and the part is whole."""
    job = job_of(tmp_path, model, [f"a {i}" for i in range(10)])
    first, second = Runner(job, Worker(job.settings)), Runner(job, Worker(job.settings))

    def meanwhile(rows):
        second(job.parts[0])

    with pytest.raises(InputError, match="expected no other process to write it, found that one did"):
        first(job.parts[0], meanwhile)
    assert job.record(job.parts[0])["rows"] == 10 and sorted(os.listdir(job.output)) == [
        "_job.json", "_parts", "part-00000.parquet",
    ]  # fmt: skip
