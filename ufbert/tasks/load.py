"""A model with its tokenizer, for a task that needs a certain head."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from ..checkpoint.files import ModelFolder
from ..checkpoint.pack import load_model
from ..checkpoint.tokenization import load_tokenizer
from ..encoder import Model
from ..errors import CheckpointError
from ..tokenizer import Tokenizer

__all__ = ["Parts", "labels", "load_parts", "top"]


class Parts(NamedTuple):
    """What a task works with; `head` is the model's, of the class that the task needs."""

    model: Model
    head: Any
    tokenizer: Tokenizer


def load_parts(folder: str | os.PathLike[str], task: str, dtype: str) -> Parts:
    """Load a model folder whose checkpoint has the head of `task`, in the precision `dtype`.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or has another head.
    """
    root = ModelFolder(folder)
    model = load_model(root, dtype=dtype, task=task)
    if model.config.task != task:
        raise CheckpointError(
            f"{root.path / 'config.json'}: expected an architecture for {task}, found one for {model.config.task}; "
            "use a model that was trained for this task"
        )
    config = model.config
    tokenizer = load_tokenizer(root.tokenizer_folder(), config.max_position_embeddings, vocab_size=config.vocab_size)
    return Parts(model, model.head, tokenizer)


def labels(model: Model) -> list[str]:
    """Names of the classes, "LABEL_0" and so on where config.json gives none."""
    return [model.config.id2label.get(index, f"LABEL_{index}") for index in range(model.config.num_labels)]


def top(scores: np.ndarray, count: int) -> Any:
    """Indices of the `count` highest scores of a row, best first, without sorting the whole row."""
    count = min(count, len(scores))
    best = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    return best[np.argsort(-scores[best], kind="stable")]
