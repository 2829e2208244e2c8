"""How a fine-tuning run goes: hyperparameters, the order of rows, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, shown

__all__ = ["Recipe", "batches", "learning_rate"]

BUCKET = 50  # batches among which rows are sorted by length


@dataclass(frozen=True)
class Recipe:
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
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise InputError(f"{name}: expected an integer from {low} to {high}, got {shown(value)}")
        if not 0 < self.learning_rate < 1:
            raise InputError(f"learning_rate: expected a number between 0 and 1, got {shown(self.learning_rate)}")
        if self.dtype not in ("float32", "float16"):
            raise InputError(f"dtype: expected float32 or float16, got {shown(self.dtype)}")


def batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Cut the rows of an epoch into batches of about one length each, so that little is padded.

    Rows are shuffled, sorted by length within buckets of 50 batches, cut, and the batches shuffled; the order depends
    on `seed` and `epoch` alone.
    """
    rng = np.random.default_rng((seed, epoch))
    rows, sizes = rng.permutation(len(lengths)), np.asarray(lengths)
    cut = []
    for start in range(0, len(rows), BUCKET * batch_size):
        bucket = rows[start : start + BUCKET * batch_size]
        bucket = bucket[np.argsort(sizes[bucket], kind="stable")]
        cut += [bucket[first : first + batch_size] for first in range(0, len(bucket), batch_size)]
    return [cut[index] for index in rng.permutation(len(cut))]


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of a step: it rises for a share of the steps and falls along a cosine to 0."""
    rising = recipe.warmup * steps
    if step < rising:
        return recipe.learning_rate * (step + 1) / (rising + 1)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
