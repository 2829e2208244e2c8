"""The dense model, run by ufbert itself, with what each of its layers reads and gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..batch import Batch
from ..checkpoint.files import ModelFolder
from ..checkpoint.sentence import load_sentence_model
from ..errors import CheckpointError

__all__ = ["Activations", "Teacher"]


@dataclass(frozen=True)
class Activations:
    """What flows through the teacher, of T tokens.

    Attributes
    ----------
    inputs : list of (T, H) float32 arrays
        What each layer's feed-forward layer reads: attention, residual sum and norm are done.
    outputs : list of (T, H) float32 arrays
        What each layer gives: after residual sum and norm.
    """

    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


class Teacher:
    """A dense BERT with its tokenizer.

    Parameters
    ----------
    folder : str or path
        A sentence-transformers folder; a plain BERT folder is pooled by its mean.
    dtype : {"float32", "bfloat16", "int8"}

    Raises
    ------
    CheckpointError
        If the folder is not usable, or is no BERT with dense layers.
    """

    def __init__(self, folder: str, dtype: str = "float32") -> None:
        files = ModelFolder(folder)
        loaded = load_sentence_model(files, None if files.pooling() else "mean", dtype)
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.config = loaded.model.config
        self.pooling = loaded.pooling.modes[0]
        if loaded.pooling.modes not in (("cls",), ("mean",)):
            raise CheckpointError(
                f"{folder}: expected a teacher with cls or mean pooling, found {' and '.join(loaded.pooling.modes)}; "
                "embeddings pooled otherwise cannot be distilled: choose another model"
            )
        if self.config.family != "bert" or self.config.feed_forward != "dense":
            raise CheckpointError(
                f"{folder}: expected a BERT with dense feed-forward layers as a teacher, found "
                f"{self.config.family} with {self.config.feed_forward}; choose the dense model"
            )

    def __call__(self, batch: Batch) -> Activations:
        """Run all layers and keep what flows between them."""
        x = self.model.encoder.embeddings(batch)
        inputs, outputs = [], []
        for layer in self.model.encoder.layers:
            x = layer.norm1(layer.attention(x, batch, residual=x))
            inputs.append(x)
            x = layer.norm2(layer.feed_forward(x, residual=x))
            outputs.append(x)
        return Activations(inputs, outputs)
