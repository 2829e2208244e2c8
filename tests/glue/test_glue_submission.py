"""Prediction files as GLUE's server takes them."""

import numpy as np
import pytest

from ufbert.glue import load_task, read_split, write_predictions


@pytest.mark.parametrize(
    ("name", "predictions", "lines"),
    [
        ("CoLA", [1, 0], ["0\t1", "1\t0"]),
        ("MRPC", [1], ["0\t1"]),
        ("WNLI", [0], ["0\t0"]),
        ("QNLI", [1], ["0\tnot_entailment"]),
        ("RTE", [0], ["0\tentailment"]),
        ("STS-B", [5.2], ["0\t5.000"]),
        ("STS-B", [-0.1], ["0\t0.000"]),
        ("STS-B", [2.34567], ["0\t2.346"]),
    ],
)
def test_one_file(glue, tmp_path, name, predictions, lines):
    task, folder = load_task(glue, name)
    rows = read_split(task, task.test[0], folder)
    file = write_predictions(tmp_path / "submission", task, task.test[0], rows, np.array(predictions))
    assert file == tmp_path / "submission" / f"{name}.tsv"
    assert file.read_bytes() == "\n".join(["index\tprediction", *lines, ""]).encode()


def test_three_files_of_mnli(glue, tmp_path):
    task, folder = load_task(glue, "MNLI")
    for split in task.test:
        write_predictions(tmp_path, task, split, read_split(task, split, folder), np.array([2]))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"]
    assert (tmp_path / "MNLI-mm.tsv").read_text() == "index\tprediction\n0\tcontradiction\n"
