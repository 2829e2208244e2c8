"""Metrics against formulas of their own and against scikit-learn and SciPy, degenerate predictions too."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from ufbert import InputError
from ufbert.glue.metrics import measure

CLASSES = ("accuracy", "f1", "matthews")
VALUES = ("pearson", "spearman")


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_classes_by_their_formulas(rows):
    labels, predictions = np.array(rows).T
    tp, fp = (predictions & labels).sum(), (predictions & ~labels & 1).sum()
    fn, tn = (~predictions & labels & 1).sum(), len(rows) - (predictions | labels).sum()
    root = np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    expected = {
        "accuracy": (labels == predictions).mean(),
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "matthews": (tp * tn - fp * fn) / root if root else 0.0,
    }
    assert measure(CLASSES, labels, predictions) == pytest.approx(expected, abs=1e-12)


def test_three_classes_as_scikit_learn():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 3, (2, 500))
    found = measure(("accuracy", "matthews"), labels, predictions)
    assert found["accuracy"] == sklearn_metrics.accuracy_score(labels, predictions)
    assert found["matthews"] == sklearn_metrics.matthews_corrcoef(labels, predictions)


@given(st.lists(st.tuples(st.integers(0, 10), st.integers(-5, 5)), min_size=2, max_size=60))
def test_correlations_as_scipy_with_ties(rows):
    labels, predictions = np.array(rows, float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = [function(labels, predictions)[0] for function in (stats.pearsonr, stats.spearmanr)]
    found = measure(VALUES, labels, predictions)
    assert list(found.values()) == pytest.approx(np.nan_to_num(expected), abs=1e-12)


def test_constants_and_single_rows_are_numbers_without_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measure(VALUES, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]) == {"pearson": 0.0, "spearman": 0.0}
        assert measure(VALUES, [1.0], [2.0]) == {"pearson": 0.0, "spearman": 0.0}
        assert measure(CLASSES, [0, 0], [0, 0]) == {"accuracy": 1.0, "f1": 0.0, "matthews": 0.0}
        assert measure(CLASSES, [0, 1], [1, 1])["matthews"] == 0.0


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [([], [], "at least one"), ([1, 0], [1], "one for each of 2 labels"), ([1.0, 2.0], [1.0, np.nan], "got .*nan")],
)
def test_refusals(labels, predictions, message):
    with pytest.raises(InputError, match=message):
        measure(VALUES, labels, predictions)
