"""A linear probe: what a ridge regression reads off a frozen encoder's sentence embeddings. No PyTorch, no seeds.

A pair is given to it as |u - v| and u * v of both embeddings, as in SentEval (arXiv 1803.05449).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..tasks import SentenceEncoder
from ..tokenizer import Text
from .data import Rows, read_split, read_train
from .evaluate import Score, class_numbers, score_rows
from .tasks import Task

__all__ = ["probe"]

PENALTIES = np.logspace(-1, 4, 11)  # cross-validation on the training rows chooses one


def probe(
    encoder: SentenceEncoder, task: Task, folder: Path, batch_size: int = 32, progress: bool = False
) -> list[Score]:
    """Fit a probe on the training rows of a task and score it on the dev rows.

    Parameters
    ----------
    encoder : SentenceEncoder
    task : Task
    folder : Path
        Where its files are.
    batch_size : int
    progress : bool
        Show progress on stderr.

    Returns
    -------
    list of Score
        One for each dev split.
    """
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(rows: Rows) -> np.ndarray:
        return _features(encoder, rows.texts, batch_size, progress)

    train = read_train(task, folder)
    labels = train.labels if task.regression else class_numbers(task, train)
    head = RidgeCV(PENALTIES) if task.regression else RidgeClassifierCV(PENALTIES)
    fitted = make_pipeline(StandardScaler(), head).fit(features(train), labels)
    scores = []
    for split in task.dev:
        rows = read_split(task, split, folder)
        scores.append(score_rows(task, split, rows, fitted.predict(features(rows))))
    return scores


def _features(encoder: SentenceEncoder, texts: Sequence[Text], batch_size: int, progress: bool) -> np.ndarray:
    """Embeddings of texts (N, dim), or of pairs (N, 2 * dim); each different text is embedded once."""
    parts = [text if isinstance(text, tuple) else (text,) for text in texts]
    unique = {text: index for index, text in enumerate(dict.fromkeys(text for part in parts for text in part))}
    embeddings = encoder.encode(list(unique), batch_size, show_progress_bar=progress)
    columns = [embeddings[[unique[text] for text in column]] for column in zip(*parts, strict=True)]
    if len(columns) == 1:
        return columns[0]
    u, v = columns
    return np.concatenate([np.abs(u - v), u * v], axis=1)
