"""Jobs: parts, shards, and what is refused by name when a folder belongs to another job."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_sentence_model

import ufbert
from ufbert import InputError
from ufbert.precision import automatic
from ufbert.scale import Columns, Job, Part, Settings, Shard, Worker, plan
from ufbert.scale.job import BLOCK, WHOLE, Input, _digest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_sentence_model(tmp_path_factory.mktemp("job") / "model"))


def write(folder, *counts):
    folder.mkdir(exist_ok=True)
    for number, count in enumerate(counts):
        (folder / f"{number}.jsonl").write_text("".join(f'{{"n": {i}, "text": "text {i}"}}\n' for i in range(count)))
    return folder


def planned(folder, model, output="out", **changes):
    settings = Settings("embed", model, **changes.pop("settings", {}))
    named = {
        "pattern": f"{folder}/*.jsonl", "columns": Columns(("text",), "n"), "output": folder / output,
        "settings": settings, "format": "parquet", "part_rows": 10, "version": ufbert.__version__,
    }  # fmt: skip
    return plan(**named | changes)


def test_parts_do_not_cross_files_and_empty_files_have_one(tmp_path, model):
    job = planned(write(tmp_path, 25, 0, 10), model)
    assert [(part.number, part.input.name, part.first, part.rows) for part in job.parts] == [
        (0, "0.jsonl", 0, 10), (1, "0.jsonl", 10, 10), (2, "0.jsonl", 20, 5), (3, "1.jsonl", 0, 0),
        (4, "2.jsonl", 0, 10),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_share_all_parts(tmp_path, model, count):
    job = planned(write(tmp_path, 35, 12), model)
    shares = [job.shard(Shard(index, count)) for index in range(1, count + 1)]
    assert sorted(part.number for share in shares for part in share) == list(range(6))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_names_are_those_below_the_common_folder(tmp_path, model):
    for name in ("x", "y"):
        write(tmp_path / name, 3)
    job = planned(tmp_path, model, pattern=f"{tmp_path}/*/*.jsonl")
    assert [file.name for file in job.inputs] == ["x/0.jsonl", "y/0.jsonl"]
    assert [file.name for file in planned(tmp_path / "x", model).inputs] == ["0.jsonl"]


def change_input(folder, model, job):
    path = folder / "0.jsonl"
    path.write_text(path.read_text().replace("text 3", "text 8"))
    return planned(folder, model)


def add_input(folder, model, job):
    (folder / "9.jsonl").write_text('{"n": 1, "text": "a"}\n')
    return planned(folder, model)


def change_model(folder, model, job):
    return planned(folder, str(write_sentence_model(folder / "model", max_position_embeddings=32, layer_norm_eps=1e-3)))


CHANGES = {
    "input.0.jsonl.sha256": change_input,
    "input.9.jsonl.bytes": add_input,
    "model.settings_sha256": change_model,
    "dtype": lambda folder, model, job: planned(folder, model, settings={"dtype": "bfloat16"}),
    "options.prompt": lambda folder, model, job: planned(folder, model, settings={"options": {"prompt": "query: "}}),
    "on_error": lambda folder, model, job: planned(folder, model, settings={"on_error": "null"}),
    "format": lambda folder, model, job: planned(folder, model, format="jsonl"),
    "part_rows": lambda folder, model, job: planned(folder, model, part_rows=11),
    "id": lambda folder, model, job: planned(folder, model, columns=Columns(("text",))),
    "version": lambda folder, model, job: planned(folder, model, version="99"),
    "instruction_set": lambda folder, model, job: replace(job, instruction_set="other"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named(tmp_path, model, name):
    job = planned(write(tmp_path, 5), model)
    job.begin(Shard(), resume=False)
    planned(tmp_path, model).begin(Shard(), resume=True)
    with pytest.raises(InputError, match=rf"out: {name}: expected .*, with which this output was begun, got"):
        CHANGES[name](tmp_path, model, job).begin(Shard(), resume=True)


def test_a_folder_with_other_files_and_a_file_are_refused(tmp_path, model):
    job = planned(write(tmp_path, 5), model, output=".")
    with pytest.raises(InputError, match=r"found '0\.jsonl' in"):
        job.begin(Shard(), resume=True)
    with pytest.raises(InputError, match="expected a folder, got"):
        replace(job, output=tmp_path / "0.jsonl").begin(Shard(), resume=True)
    (tmp_path / "_job.json").write_text("[]")
    with pytest.raises(InputError, match="expected the description of a job"):
        job.begin(Shard(), resume=True)


def test_a_description_that_another_shard_is_writing_is_no_other_file(tmp_path, model):
    job = planned(write(tmp_path, 15), model)
    job.output.mkdir()
    left = job.output / "._job.json.123-00aa00aa.part"  # as `whole_file` names it, and as a kill leaves it
    left.write_text('{"version":')
    job.begin(Shard(1, 2), resume=True)
    assert (job.output / "_job.json").exists()
    record = job.output / "_parts" / ".00001.json.123-00aa00aa.part"
    for part in job.parts:
        job.file(part).write_bytes(b"1234")
        job.write_record(part, {"bytes": 4, "rows": part.rows, "failed": 0, "truncated": 0})
    record.write_text("{")
    assert job.finish()
    assert not left.exists()  # the folder has the same files as that of a run without a kill
    assert not record.exists()


def test_many_shards_begin_at_once(tmp_path, model):
    job = planned(write(tmp_path, 15), model)
    code = (
        "import pickle, sys; from ufbert.scale import Shard; job = pickle.load(sys.stdin.buffer); print(flush=True)\n"
        "while not (job.output.parent / 'go').exists(): pass\n"
        "job.begin(Shard(int(sys.argv[1]), 4), resume=True)"
    )
    for attempt in range(5):
        tried = replace(job, output=tmp_path / f"at once {attempt}" / "out")
        tried.output.parent.mkdir()
        shards = [
            subprocess.Popen([sys.executable, "-c", code, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for number in (1, 2, 3, 4)
        ]
        for shard in shards:
            shard.stdin.write(pickle.dumps(tried))
            shard.stdin.close()
            shard.stdout.readline()
        (tried.output.parent / "go").touch()
        assert [shard.wait(60) for shard in shards] == [0] * 4


def test_finished_parts_need_resume(tmp_path, model):
    job = planned(write(tmp_path, 15), model)
    job.begin(Shard(), resume=False)
    part = job.parts[1]
    job.file(part).write_bytes(b"1234")
    assert job.record(part) is None
    job.write_record(part, {"bytes": 4})
    assert job.record(part) == {"bytes": 4}
    job.begin(Shard(1, 2), resume=False)  # the other shard's
    with pytest.raises(InputError, match="found 1 finished parts"):
        job.begin(Shard(2, 2), resume=False)
    job.begin(Shard(2, 2), resume=True)
    job.file(part).write_bytes(b"12345")
    assert job.record(part) is None  # its file is another one


def test_rows_are_counted_once(tmp_path, model, monkeypatch):
    planned(write(tmp_path, 5), model).begin(Shard(), resume=False)
    monkeypatch.setattr("ufbert.scale.sources._Jsonl.count", None)
    assert [file.rows for file in planned(tmp_path, model).inputs] == [5]


def test_ids_of_two_types_are_refused(tmp_path, model):
    write(tmp_path, 5, 5)
    (tmp_path / "1.jsonl").write_text('{"n": "a", "text": "b"}\n')
    with pytest.raises(InputError, match=r"n: expected ids of one type in all files, found int64 in .*, string in"):
        planned(tmp_path, model)


def test_the_manifest_waits_for_all_parts(tmp_path, model):
    job = planned(write(tmp_path, 15), model)
    job.begin(Shard(), resume=False)
    for part in job.parts:
        assert not job.finish()
        job.file(part).write_bytes(b"1234")
        job.write_record(part, {"bytes": 4, "rows": part.rows, "failed": 1, "truncated": 0})
    assert job.finish()
    manifest = json.loads((job.output / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["failed"], manifest["bytes"], len(manifest["parts"])) == (15, 2, 8, 2)


def test_auto_is_settled_for_all_machines(tmp_path, model):
    job = planned(write(tmp_path, 5), model, settings={"dtype": "auto"})
    assert job.settings.dtype == automatic("dense").dtype != "auto"
    assert (
        Worker(job.settings).settings.dtype == job.layout(job.parts[0], Worker(job.settings)).metadata["ufbert.dtype"]
    )


def test_large_files_are_digested_at_places(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as stream:
        stream.truncate((WHOLE + 40) * BLOCK + 5)
    before = _digest(path)
    with open(path, "r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"x")
    assert _digest(path) != before


def test_thousands_of_parts(tmp_path):
    file = Input(Path("a"), "a", 1, "", 1_000_000_007)
    job = Job(tmp_path, Settings(), Columns(("text",)), "parquet", 100_000, (file,), "", "1", {}, "avx2")
    assert (
        job.parts[-1] == Part(10_000, file, 1_000_000_000, 7) and job.file(job.parts[-1]).name == "part-10000.parquet"
    )
