"""Scores of classifiers, whatever their labels are called."""

import numpy as np
import pytest
from glue_files import write_classifier

import ufbert
from ufbert import InputError
from ufbert.glue import evaluate, find_classifiers, load_task, predict, read_split
from ufbert.glue.metrics import measure


def test_scores_are_those_of_the_classifiers_own_labels(glue, tmp_path):
    task, folder = load_task(glue, "CoLA")
    classifier = ufbert.TextClassifier(write_classifier(tmp_path / "c", ["unacceptable", "acceptable"]))
    rows = read_split(task, task.dev[0], folder)
    predicted = [int(found["label"] == "acceptable") for found in classifier(rows.texts)]
    (score,) = evaluate(classifier, task, folder)
    assert score.metrics == measure(("matthews",), [1, 0], predicted)
    assert (score.split, score.rows, score.is_official) == ("CoLA", 2, False)


def test_both_splits_of_mnli_in_any_order_of_labels(glue, tmp_path):
    task, folder = load_task(glue, "MNLI")
    first = ufbert.TextClassifier(write_classifier(tmp_path / "a", ["CONTRADICTION", "Neutral", "entailment"]))
    scores = evaluate(first, task, folder)
    assert [(score.split, score.rows, score.skipped) for score in scores] == [("MNLI-m", 1, 1), ("MNLI-mm", 1, 0)]
    texts = [("A cat.", "A dog."), ("b", "c.")] * 5
    best = [found["label"].lower() for found in first(texts)]
    assert [list(task.labels)[number] for number in predict(first, task, texts)] == best


def test_labels_without_names_are_in_the_usual_order(glue, tmp_path):
    task, _ = load_task(glue, "RTE")
    texts = [("Dana.", "Dana C."), ("a", "b")]
    named = ufbert.TextClassifier(write_classifier(tmp_path / "a", ["entailment", "not_entailment"]))
    unnamed = ufbert.TextClassifier(write_classifier(tmp_path / "b", ["LABEL_0", "LABEL_1"]))
    np.testing.assert_array_equal(predict(named, task, texts), predict(unnamed, task, texts))


def test_regression(glue, tmp_path):
    task, folder = load_task(glue, "STS-B")
    classifier = ufbert.TextClassifier(write_classifier(tmp_path / "a", ["score"], problem_type="regression"))
    texts = read_split(task, task.dev[0], folder).texts
    np.testing.assert_allclose(predict(classifier, task, texts), classifier.logits(texts)[:, 0], rtol=1e-6)
    assert set(evaluate(classifier, task, folder)[0].metrics) == {"pearson", "spearman"}


@pytest.mark.parametrize("labels", [["yes", "no"], ["entailment"], ["entailment", "not_entailment", "else"]])
def test_labels_of_another_task_are_refused(glue, tmp_path, labels):
    classifier = ufbert.TextClassifier(write_classifier(tmp_path / "a", labels))
    with pytest.raises(InputError, match="expected a classifier with the labels of RTE"):
        evaluate(classifier, *load_task(glue, "RTE"))


def test_predictions_for_nothing(glue, tmp_path):
    classifier = ufbert.TextClassifier(write_classifier(tmp_path / "a", ["0", "1"]))
    assert predict(classifier, load_task(glue, "CoLA")[0], []).shape == (0,)


def test_what_a_folder_is(tmp_path, bert_folder, glue):
    assert find_classifiers(bert_folder, None) == {}
    one = write_classifier(tmp_path / "all" / "SST-2", ["0", "1"], finetuning_task="SST-2")
    other = write_classifier(tmp_path / "all" / "mine", ["0", "1"])
    assert find_classifiers(one, None) == {"SST-2": one}
    assert find_classifiers(one, ["cola"]) == {"CoLA": one}
    assert find_classifiers(tmp_path / "all", None) == {"SST-2": one, "mine": other}
    assert find_classifiers(tmp_path / "all", ["sst-2"]) == {"SST-2": one}
    with pytest.raises(InputError, match="expected the one task that it was trained for, got none"):
        find_classifiers(other, None)
    with pytest.raises(InputError, match="expected a classifier folder for RTE, found those for SST-2, mine"):
        find_classifiers(tmp_path / "all", ["RTE"])
    with pytest.raises(ufbert.CheckpointError, match=r"config.json"):
        find_classifiers(glue, None)
