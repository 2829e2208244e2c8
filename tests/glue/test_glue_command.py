"""``ufbert glue`` as a process."""

import json
import subprocess
import sys

import pytest
from conftest import GOLDEN, write_sentence_model
from glue_files import write_classifier

COMMAND = [sys.executable, "-m", "ufbert", "glue"]


def run(*arguments, code=0):
    result = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == code, result.stderr
    return result.stdout, result.stderr


def test_a_folder_of_classifiers_is_scored_and_submitted(glue, tmp_path):
    for name, labels in (
        ("SST-2", ["negative", "positive"]),
        ("MNLI", ["contradiction", "neutral", "entailment"]),
        ("STS-B", ["score"]),
    ):
        write_classifier(tmp_path / "models" / name, labels)
    out, _ = run("--model", tmp_path / "models", "--data", glue, "--out", tmp_path / "out")
    assert [line.split()[0] for line in out.splitlines()] == [
        "MNLI-m", "MNLI-mm", "SST-2", "STS-B", "average", "Not",
    ]  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["values"]) == {"MNLI", "SST-2", "STS-B"} and not results["is_glue_score"]
    files = sorted(file.name for file in (tmp_path / "out" / "submission").iterdir())
    assert files == ["AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv", "SST-2.tsv", "STS-B.tsv"]


def test_one_classifier_with_its_task_named(glue, tmp_path):
    folder = write_classifier(tmp_path / "c", ["0", "1"])
    out, _ = run("--model", folder, "--data", glue, "--tasks", "cola")
    assert out.startswith("CoLA ") and "matthews" in out
    _, complaint = run("--model", folder, "--data", glue, code=1)
    assert "name it with --tasks" in complaint


def test_an_encoder_is_probed(tmp_path):
    folder = write_sentence_model(tmp_path / "encoder")
    (tmp_path / "data" / "Mood").mkdir(parents=True)
    for split in ("train", "dev"):
        (tmp_path / "data" / "Mood" / f"{split}.tsv").write_text("a cat\tgood\nthe dog\tbad\nx y\tgood\nz\tbad\n")
    out, _ = run("--model", folder, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert out.startswith("linear probe on frozen sentence embeddings\nMood ")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["method"] == "probe"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nowhere"], "nowhere: expected a model folder"),
        (["--model", "nowhere", "--finetune"], "expected --out FOLDER"),
    ],
)
def test_refusals(glue, arguments, message):
    assert message in run("--data", glue, *arguments, code=1)[1]


@pytest.mark.parametrize("more", [[], ["--finetune", "--out", "results"]])
def test_a_folder_without_tasks_is_refused(tmp_path, more):
    model = write_sentence_model(tmp_path / "encoder")
    assert (
        f"expected folders of tasks (CoLA, SST-2, ...) in {tmp_path}, found none"
        in run("--model", model, "--data", tmp_path, *more, code=1)[1]
    )


def test_an_encoder_whose_transformer_is_in_a_subfolder_is_probed(tmp_path):
    (tmp_path / "data" / "Mood").mkdir(parents=True)
    for split in ("train", "dev"):
        (tmp_path / "data" / "Mood" / f"{split}.tsv").write_text("a cat\tgood\nthe dog\tbad\nx y\tgood\nz\tbad\n")
    model = GOLDEN / "sentence-transformers" / "subfolder-0-transformer"
    out, _ = run("--model", model, "--data", tmp_path / "data", "--out", tmp_path / "out")
    assert out.startswith("linear probe on frozen sentence embeddings\nMood ")
