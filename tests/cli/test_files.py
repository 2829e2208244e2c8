"""Verbs over files, as processes: killed at random moments, shared out, refused."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import GOLDEN, write_sentence_model
from pyarrow import parquet

import ufbert

COMMAND = [sys.executable, "-m", "ufbert"]
BENCH = Path(__file__).parents[2] / "bench" / "files.py"
CLASSIFIER = GOLDEN / "pipelines" / "text-classification"
RERANKER = GOLDEN / "pipelines" / "text-classification-one-label"
TEXTS = [f"text {i}, a cat" for i in range(250)]


def run(*arguments, code=0):
    result = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == code, result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("files") / "model")


@pytest.fixture
def rows(tmp_path):
    for number, start in enumerate((0, 125)):
        table = pa.table({"id": [f"n{i}" for i in range(start, start + 125)], "text": TEXTS[start : start + 125]})
        parquet.write_table(table, tmp_path / f"in-{number}.parquet")
    return tmp_path / "in-*.parquet"


def embed(rows, output, model, *more, code=0):
    return run("embed", "--input", rows, "--column", "text", "--output", output, "--model", model, *more, code=code)


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_fifty_thousand_rows_killed_at_ten_random_moments_and_shared_out(tmp_path, model):
    corpus = tmp_path / "corpus"
    corpus.write_text("".join(f"{'abcdefghij'[i % 10]} cat {i}\n" for i in range(1_000)))
    arguments = ["--rows", 50_000, "--part-rows", 2_000, "--kills", 10, "--model", model, "--corpus", corpus]
    result = subprocess.run(
        [sys.executable, BENCH, tmp_path / "job", *map(str, arguments), "--stages", "killed,whole,shards"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["same bytes"] == {"killed": True, "whole": True, "shards": True}
    assert len(report["killed"]["kills"]) == 10
    table = parquet.read_table(tmp_path / "job" / "killed")
    assert table["id"].to_pylist() == list(range(50_000))
    read = parquet.read_table(tmp_path / "job" / "input-2.parquet", columns=["text"])["text"].to_pylist()[:100]
    expected = ufbert.SentenceEncoder(model).encode(read)
    np.testing.assert_array_equal(np.stack(table["embedding"][25_000:25_100].to_numpy()), expected)


def test_shards_come_in_any_order_and_the_last_writes_the_manifest(rows, tmp_path, model):
    embed(rows, tmp_path / "whole", model, "--part-rows", 50)
    assert "other shards are not finished" in embed(rows, tmp_path / "out", model, "--part-rows", 50, "--shard", "2/2")
    assert not (tmp_path / "out" / "_manifest.json").exists()
    embed(rows, tmp_path / "out", model, "--part-rows", 50, "--shard", "1/2")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["rows"] == 250 and [part["rows"] for part in manifest["parts"]] == [50, 50, 25] * 2
    for part in manifest["parts"]:
        assert digests(tmp_path / "out")[part["file"]] == part["sha256"]


@pytest.mark.parametrize("name", ["jsonl", "npy"])
def test_other_formats(rows, tmp_path, model, name):
    embed(rows, tmp_path / "out", model, "--format", name)
    expected = ufbert.SentenceEncoder(model).encode(TEXTS[:125])
    if name == "npy":
        found = np.load(tmp_path / "out" / "part-00000.npy")
    else:
        lines = [json.loads(line) for line in (tmp_path / "out" / "part-00000.jsonl").read_text().splitlines()]
        assert [line["row"] for line in lines] == list(range(125))
        found = np.float32([line["embedding"] for line in lines])
    np.testing.assert_array_equal(found, expected)


def test_progress_says_rate_and_time_left(rows, tmp_path, model):
    said = embed(rows, tmp_path / "out", model).splitlines()
    assert said[0].startswith("ufbert: 1 of 2 parts, 125 of 250 rows, ") and said[0].endswith(" left")
    assert "2 of 2 parts are finished already" in embed(rows, tmp_path / "out", model, "--resume")
    assert embed(rows, tmp_path / "quiet", model, "--quiet") == ""


def test_rows_with_errors(tmp_path, model):
    (tmp_path / "a.csv").write_text("text,id\na cat,x\n" + "b " * 100 + ",y\n")
    (tmp_path / "b.jsonl").write_text('{"text": null}\n{"text": "a"}\n')
    said = embed(tmp_path / "a.csv", tmp_path / "a", model, "--id", "id")
    assert "1 texts were longer than the model takes" in said
    assert parquet.read_table(tmp_path / "a")["id"].to_pylist() == ["x", "y"]
    said = embed(tmp_path / "b.jsonl", tmp_path / "b", model, code=1)
    assert "b.jsonl: row 0: expected a text, found null" in said and "--resume goes on" in said
    said = embed(tmp_path / "b.jsonl", tmp_path / "c", model, "--on-error", "null", "--format", "jsonl")
    assert "1 rows without a result" in said
    rows = [json.loads(line) for part in sorted((tmp_path / "c").glob("part-*")) for line in part.open()]
    assert [row["embedding"] is None for row in rows] == [True, False]


def test_classify_and_pairs(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": "the cat", "b": "a b"}\n{"a": "c d", "b": "e"}\n')
    files = ["--input", tmp_path / "a.jsonl", "--column", "a", "--model", CLASSIFIER]
    run("classify", *files, "--output", tmp_path / "one")
    expected = ufbert.TextClassifier(CLASSIFIER)(["the cat", "c d"])
    rows = parquet.read_table(tmp_path / "one").to_pylist()
    assert [row["label"] for row in rows] == [label["label"] for label in expected]
    run("classify", *files, "--pair-column", "b", "--top-k", 2, "--output", tmp_path / "two")
    expected = ufbert.TextClassifier(CLASSIFIER)([("the cat", "a b"), ("c d", "e")], top_k=2)
    rows = parquet.read_table(tmp_path / "two").to_pylist()
    assert [row["labels"] for row in rows] == [[label["label"] for label in row] for row in expected]


def test_rerank_with_one_query_or_one_a_row(tmp_path):
    (tmp_path / "a.csv").write_text("q,text\nwho,the cat\nwhat,a b c\n")
    files = ["rerank", "--input", tmp_path / "a.csv", "--column", "text", "--model", RERANKER]
    run(*files, "--query", "who", "--output", tmp_path / "one")
    run(*files, "--query-column", "q", "--output", tmp_path / "two")
    scorer = ufbert.CrossEncoder(RERANKER)
    for name, queries in [("one", ["who", "who"]), ("two", ["who", "what"])]:
        expected = scorer.predict(list(zip(queries, ["the cat", "a b c"], strict=True)))
        assert parquet.read_table(tmp_path / name)["score"].to_pylist() == expected.tolist()
    assert "--query or --query-column" in run(*files, "--output", tmp_path / "three", code=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "--input", "a.parquet"], "name the one of the texts by --column"),
        (["embed", "--input", "a.txt", "--shard", "1/2"], "--shard needs --column"),
        (["embed", "--input", "a.txt", "--format", "parquet"], "--format parquet needs --column"),
        (["embed", "--input", "a.csv", "--column", "c"], "--column needs --output FOLDER"),
        (["embed", "--column", "c", "--output", "o", "text"], "--column needs --input FILES"),
        (["embed", "--input", "a.csv", "--column", "c", "--output", "o", "--query", "q"], "--query ranks texts"),
        (["embed", "--input", "a.csv", "--column", "c", "--output", "o", "--shard", "3/2"], "must be I/N"),
        (
            ["embed", "--input", "a.csv", "--column", "c", "--output", "o", "--format", "plain"],
            "expected parquet or npy or jsonl",
        ),
        (
            ["embed", "--input", "a", "--column", "c", "--output", "o", "--format", "npy", "--id", "i"],
            "expected parquet or",
        ),
        (["classify", "--input", "a", "--column", "c", "--output", "o", "--format", "npy"], "invalid choice"),
        (
            ["embed", "--input", "a", "--column", "c", "--output", "o", "--ray", "x", "--shard", "1/2"],
            "leave --shard out",
        ),
    ],
)
def test_wrong_usage(arguments, message):
    assert message in run(*arguments, code=2)


def test_ctrl_c_says_how_to_go_on(tmp_path, model):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "a cat {i}"}}\n' for i in range(200_000)))
    arguments = ["embed", "--input", tmp_path / "a.jsonl", "--column", "text", "--output", tmp_path / "out"]
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments), "--model", model, "--part-rows", "500"], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "out" / "_parts").exists() or len(os.listdir(tmp_path / "out" / "_parts")) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 1 and "the same command with --resume goes on" in said and "Traceback" not in said
    assert not list((tmp_path / "out").glob(".*"))
