"""How a fine-tuning run goes: hyperparameters and the order of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ... import checks
from ...errors import InputError, shown
from ..batches import cut

__all__ = ["FinetuneRecipe", "batches"]

BUCKET = 50  # batches among which rows are sorted by length


@dataclass(frozen=True)
class FinetuneRecipe:
    """One set of hyperparameters for all tasks.

    But for the learning rate, which a small encoder wants larger, these are those of arXiv 2311.10770 and its
    predecessor 2212.14034: AdamW (0.9, 0.98), cosine decay, batches of 16, at most 5 epochs, 128 tokens.

    Attributes
    ----------
    epochs : int
    learning_rate : float
        At its peak, after the warm-up.
    warmup : float
        Share of the steps in which it rises.
    batch_size : int
    max_seq_length : int
        Tokens of a text or pair in training.
    weight_decay, dropout, max_grad_norm : float
        Dropout acts on the pooler's output.
    top_layers : int or None
        Train only so many of the last layers, with the head.
    dtype : {"float32", "float16"}
        Of the weights as they are written.
    """

    epochs: int = 5
    learning_rate: float = 1e-4
    warmup: float = 0.06
    batch_size: int = 16
    max_seq_length: int = 128
    weight_decay: float = 0.01
    dropout: float = 0.1
    max_grad_norm: float = 1.0
    top_layers: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name, low, high in (("epochs", 1, 1_000), ("batch_size", 1, 10_000), ("max_seq_length", 4, 100_000)):
            checks.integer(getattr(self, name), name, low, high)
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning_rate: expected a number between 0 and 1, got {shown(self.learning_rate)}")
        checks.choice(self.dtype, "dtype", ("float32", "float16"))


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Cut the rows of an epoch into batches of about one length each, so that little is padded.

    Rows are shuffled, sorted by length within buckets of 50 batches, cut, and the batches shuffled; the order depends
    on `seed` and `epoch` alone.
    """
    rng = np.random.default_rng((seed, epoch))
    rows, sizes = rng.permutation(len(lengths)), np.asarray(lengths)
    buckets = [rows[start : start + BUCKET * batch_size] for start in range(0, len(rows), BUCKET * batch_size)]
    batched = [batch for bucket in buckets for batch in cut(sizes, bucket, max_texts=batch_size)]
    return [batched[index] for index in rng.permutation(len(batched))]
