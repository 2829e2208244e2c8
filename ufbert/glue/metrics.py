"""GLUE's metrics, from scikit-learn and SciPy. Needs the extra ``glue``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError, UfbertError, shown

try:
    from scipy import stats
    from sklearn import metrics as sklearn_metrics
except ImportError as error:
    raise UfbertError(
        f"ufbert.glue: could not import SciPy and scikit-learn ({error}); install them with: pip install 'ufbert[glue]'"
    ) from error

__all__ = ["METRICS", "measure"]


def _f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """F1 of the second class, "1" in the files; 0 where neither rows nor predictions have it."""
    return float(sklearn_metrics.f1_score(labels, predictions, pos_label=1, zero_division=0))


def _correlation(of: Callable[..., Any]) -> Callable[[np.ndarray, np.ndarray], float]:
    def correlation(labels: np.ndarray, predictions: np.ndarray) -> float:
        value = float(of(labels, predictions)[0]) if len(labels) > 1 else 0.0
        return 0.0 if np.isnan(value) else value  # a constant explains nothing, and must not undo an average

    return correlation


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda labels, predictions: float(sklearn_metrics.accuracy_score(labels, predictions)),
    "f1": _f1,
    "matthews": lambda labels, predictions: float(sklearn_metrics.matthews_corrcoef(labels, predictions)),
    "pearson": _correlation(stats.pearsonr),
    "spearman": _correlation(stats.spearmanr),
}
"""By name: labels (N,), predictions (N,) -> a number, the higher the better."""


def measure(names: Sequence[str], labels: ArrayLike, predictions: ArrayLike) -> dict[str, float]:
    """Compute metrics.

    Parameters
    ----------
    names : sequence of str
        Keys of `METRICS`.
    labels, predictions : (N,) arrays
        Numbers of classes, or values for "pearson" and "spearman", whose value for a constant is 0.

    Raises
    ------
    InputError
        If the two do not have one length, are empty, or a value is not finite.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if labels.ndim != 1 or labels.shape != predictions.shape or not len(labels):
        raise InputError(
            f"predictions: expected one for each of {len(labels)} labels, at least one, got {predictions.shape}"
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if not np.isfinite(values).all():
            raise InputError(f"{name}: expected finite numbers, got {shown(values[~np.isfinite(values)][0])}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constants and single classes; the results say it
        return {name: METRICS[name](labels, predictions) for name in names}
