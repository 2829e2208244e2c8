"""A model with its tokenizer, for a task that needs a certain head."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.folder import ModelFolder
from ..checkpoint.names import bundled, default_folder, find_remote
from ..checkpoint.pack import load_model
from ..checkpoint.tokenization import load_tokenizer
from ..errors import CheckpointError
from ..text_model import TextModel

__all__ = ["load_texts", "open_model", "top"]


def open_model(name: str | os.PathLike[str] | None, *, revision: str | None, **options: Any) -> ModelFolder:
    """Open a folder, a bundled model or a model of the hub; None for the bundled default.

    `options` are others of `ufbert.checkpoint.hub.Remote`. A revision is one of the hub's, also of a bundled model.
    """
    if name is None:
        return ModelFolder(default_folder())
    remote = None if revision is None and bundled(name) else find_remote(name, revision=revision, **options)
    return ModelFolder(name) if remote is None else ModelFolder.of_hub(remote)


def load_texts(folder: ModelFolder, task: str | None, dtype: str) -> TextModel:
    """Load a model folder whose checkpoint has the head of `task`, in the precision `dtype`; None for no head.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or has another head.
    """
    config = folder.config(task is None, task)
    if task is not None and config.task != task:
        raise CheckpointError(
            f"{folder.path / 'config.json'}: expected an architecture for {task}, found one for {config.task}; "
            "use a model that was trained for this task"
        )
    tokenizer = load_tokenizer(folder.tokenizer_folder(), config.max_length, vocab_size=config.vocab_size)
    model = load_model(folder, encoder_only=task is None, dtype=dtype, task=task)  # last: its weights may be far away
    return TextModel(model, tokenizer, tokenizer.max_length)


def top(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the indices of the `count` highest scores of a row, best first, without sorting the whole row."""
    count = min(count, len(scores))
    best = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    ranked: NDArray[np.int64] = best[np.argsort(-scores[best], kind="stable")]
    return ranked
