"""Predictions for test files as GLUE's server takes them: one TSV file for each, "index" and "prediction"."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..checkpoint.writing import whole_file
from .data import Rows
from .tasks import Split, Task

__all__ = ["render_predictions", "write_predictions"]


def render_predictions(task: Task, rows: Rows, predictions: np.ndarray) -> str:
    """Text of a prediction file for the rows of a test split."""
    lines = [f"{index}\t{_render(task, value)}" for index, value in zip(rows.index, predictions, strict=True)]
    return "\n".join(["index\tprediction", *lines]) + "\n"


def write_predictions(folder: Path, task: Task, split: Split, rows: Rows, predictions: np.ndarray) -> Path:
    """Write the file, named as the split: "SST-2.tsv", "MNLI-m.tsv"; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{split.name}.tsv"
    with whole_file(file) as part:
        part.write_text(render_predictions(task, rows, predictions), encoding="utf-8", newline="\n")
    return file


def _render(task: Task, value: float) -> str:
    if task.submitted == "number":
        low, high = task.bounds or (-np.inf, np.inf)
        return f"{min(max(float(value), low), high):.3f}"
    spelling = list(task.labels)[int(value)]
    return task.labels[spelling] if task.submitted == "name" else spelling
