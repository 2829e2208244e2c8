"""A classifier's scores on a task, and its predictions; runs on `ufbert.TextClassifier`, without PyTorch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, shown
from ..tasks import TextClassifier
from ..tokenizer import Text
from .data import Rows, read_split
from .metrics import measure
from .tasks import Split, Task

__all__ = ["Score", "class_numbers", "evaluate", "predict", "score_rows"]


@dataclass(frozen=True)
class Score:
    """Metrics of one dev split.

    Attributes
    ----------
    split : str
        "SST-2", "MNLI-m", ...
    task : str
    metrics : dict of str to float
    rows, skipped : int
    official_rows : int or None
        Rows of GLUE's own file, None outside GLUE.
    """

    split: str
    task: str
    metrics: dict[str, float]
    rows: int
    skipped: int = 0
    official_rows: int | None = None

    @property
    def value(self) -> float:
        """Mean of the metrics: what averages are made of, as on GLUE's leaderboard."""
        return float(np.mean(list(self.metrics.values())))

    @property
    def is_official(self) -> bool:
        """Whether the rows can be GLUE's own dev set, by their number."""
        return self.rows == self.official_rows


def evaluate(
    classifier: TextClassifier, task: Task, folder: Path, batch_size: int = 32, progress: bool = False
) -> list[Score]:
    """Score a classifier on the dev split of a task, or on both of MNLI's.

    Raises
    ------
    InputError
        If the classifier's labels are not those of the task, or a file is missing or malformed.
    """
    scores = []
    for split in task.dev:
        rows = read_split(task, split, folder)
        scores.append(score_rows(task, split, rows, predict(classifier, task, rows.texts, batch_size, progress)))
    return scores


def score_rows(task: Task, split: Split, rows: Rows, predictions: np.ndarray) -> Score:
    """Score predictions, numbers of the task's classes or values, for the rows of a dev split."""
    labels = rows.labels if task.regression else class_numbers(task, rows)
    metrics = measure(task.metrics, labels, predictions)
    return Score(split.name, task.name, metrics, len(rows), rows.skipped, split.official_rows)


def class_numbers(task: Task, rows: Rows) -> np.ndarray:
    """Labels of rows as numbers of the task's classes, (N,) int64."""
    number = {spelling: index for index, spelling in enumerate(task.labels)}
    return np.array([number[str(label)] for label in rows.labels], np.int64)


def predict(
    classifier: TextClassifier, task: Task, texts: Sequence[Text], batch_size: int = 32, progress: bool = False
) -> np.ndarray:
    """Predict the task's classes by number, (N,) int64, or values for regression, (N,) float64.

    Raises
    ------
    InputError
        If the classifier's labels are not those of the task.
    """
    from tqdm import tqdm

    order = _order(classifier.labels, task)
    read = tqdm(texts, disable=not progress, unit="text", desc=task.name, leave=False)
    logits = classifier.logits(read, batch_size)
    return logits[:, 0].astype(np.float64) if task.regression else order[logits.argmax(axis=1)]


def _order(labels: Sequence[str], task: Task) -> np.ndarray:
    """Number of the task's class for each of the classifier's, found by spelling or name in any case."""
    if task.regression and len(labels) == 1:
        return np.zeros(1, np.int64)
    known = {text.lower(): index for index, pair in enumerate(task.labels.items()) for text in pair}
    found: list[Any] = [known.get(label.lower().replace("-", "_")) for label in labels]
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):  # no names at all: then it is the usual order
        found = list(range(len(labels)))
    if task.regression or None in found or sorted(found) != list(range(len(task.labels))):
        wanted: Any = list(task.labels.values()) or "one number"
        raise InputError(
            f"model: expected a classifier with the labels of {task.name}, {shown(wanted)}, found "
            f"{shown(list(labels))}; name the task that it was trained for with --tasks, or fine-tune it"
        )
    return np.array(found, np.int64)
