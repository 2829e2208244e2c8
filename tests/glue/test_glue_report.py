"""Averages and tables."""

import pytest

from ufbert.glue import GLUE, Score, averages, render_scores, summarise
from ufbert.glue.report import task_values


def official(value):
    return [
        Score(split.name, task.name, dict.fromkeys(task.metrics, value), split.official_rows, 0, split.official_rows)
        for task in GLUE
        for split in task.dev
    ]


def test_values_are_means_of_metrics_and_of_splits():
    scores = [
        Score("MRPC", "MRPC", {"f1": 0.9, "accuracy": 0.8}, 408),
        Score("MNLI-m", "MNLI", {"accuracy": 0.8}, 9815),
        Score("MNLI-mm", "MNLI", {"accuracy": 0.9}, 9832),
    ]
    assert task_values(scores) == pytest.approx({"MRPC": 0.85, "MNLI": 0.85})


def test_averages_leave_wnli_out_and_are_given_with_cola_and_without():
    found = averages({"CoLA": 0.5, "RTE": 0.7, "SST-2": 0.9, "WNLI": 0.1})
    assert found == pytest.approx({"average": 0.7, "average without CoLA": 0.8})
    assert averages({"RTE": 0.7}) == {"average": 0.7}
    assert averages({}) == averages({"WNLI": 0.6}) == {}


def test_only_all_of_glues_own_dev_sets_make_a_glue_score():
    assert summarise(official(0.5))["is_glue_score"]
    assert "GLUE scores" not in render_scores(official(0.5))
    assert not summarise(official(0.5)[1:])["is_glue_score"]
    other = Score("CoLA", "CoLA", {"matthews": 0.5}, 527, 0, 1043)
    assert not summarise([other, *official(0.5)[1:]])["is_glue_score"]


def test_table():
    text = render_scores(
        [
            Score("CoLA", "CoLA", {"matthews": 0.5}, 527, 0, 1043),
            Score("QQP", "QQP", {"f1": 0.7, "accuracy": 0.8}, 40_430, 3, 40_430),
        ]
    )
    assert text.splitlines() == [
        "CoLA        50.0   matthews 50.0   (527 rows, GLUE's dev set has 1,043)",
        "QQP         75.0   f1 70.0  accuracy 80.0   (40,430 rows, 3 malformed ones skipped)",
        "average                62.5",
        "average without CoLA   75.0",
        "Not GLUE's own dev sets, so no GLUE scores: CoLA.",
    ]
