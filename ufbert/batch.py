"""Ragged batches: the tokens of all texts in one flat array, with no padding.

Every padding token would cost a walk down every tree, so padded arrays exist only at the border: `Batch.from_padded`
takes them apart and `pad` puts results back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .errors import InputError

__all__ = ["Batch", "from_padded", "pad", "split_by_budget"]


@dataclass(frozen=True)
class Batch:
    """N texts of T tokens in all.

    Attributes
    ----------
    input_ids, token_type_ids, position_ids : (T,) int32 array
    cu_seqlens : (N + 1,) int64 array
        Text i has the tokens ``cu_seqlens[i]:cu_seqlens[i + 1]``.
    attended : (T,) bool array or None
        False where a token is computed but no token may attend to it; None where there is no such token.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    position_ids: np.ndarray
    cu_seqlens: np.ndarray
    attended: np.ndarray | None = None

    @classmethod
    def from_sequences(cls, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> Batch:
        """Join token sequences, as a tokenizer gives them."""
        lengths = [len(sequence) for sequence in ids]
        total = sum(lengths)
        cu_seqlens = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
        return cls(
            np.fromiter(chain.from_iterable(ids), np.int32, total),
            np.fromiter(chain.from_iterable(type_ids), np.int32, total),
            (np.arange(total) - np.repeat(cu_seqlens[:-1], lengths)).astype(np.int32),
            cu_seqlens,
        )

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.cu_seqlens) - 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all texts."""
        return len(self.input_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, (N,) int64."""
        return np.diff(self.cu_seqlens)

    def select(self, start: int, stop: int) -> Batch:
        """Return the texts `start` to `stop` as a batch of views."""
        first, last = self.cu_seqlens[start], self.cu_seqlens[stop]
        return Batch(
            self.input_ids[first:last],
            self.token_type_ids[first:last],
            self.position_ids[first:last],
            self.cu_seqlens[start : stop + 1] - first,
            None if self.attended is None else self.attended[first:last],
        )


def from_padded(input_ids, attention_mask=None, token_type_ids=None, keep="attended") -> tuple[Batch, np.ndarray]:
    """Take padded arrays apart.

    Parameters
    ----------
    input_ids : (N, S) integer array
    attention_mask : (N, S) integer or bool array, optional
        0 for tokens that no token attends to, at the end, at the start or as holes. None for all ones.
    token_type_ids : (N, S) integer array, optional
        None for zeros.
    keep : {"attended", "first", "all"}
        Which masked tokens to keep in the batch although nothing attends to them: none, the first of each text
        (a pooler reads it), or all (a pooler averages over them).

    Returns
    -------
    batch : Batch
        Positions count from the start of the row, masked tokens included, as Hugging Face's BERT counts.
    kept : (N, S) bool array
        Which elements became tokens; the argument of `pad`.

    Raises
    ------
    InputError
        If an array is not 2-D, not of integers, or not of the shape of `input_ids`.
    """
    input_ids = _integers(input_ids, "input_ids", None)
    shape = input_ids.shape
    if 0 in shape and shape[0] > 0:
        raise InputError(f"input_ids: expected at least one token a text, got shape {shape}")
    type_ids = np.zeros(shape, np.int32)
    if token_type_ids is not None:
        type_ids = _integers(token_type_ids, "token_type_ids", shape)
    mask = np.ones(shape, bool)
    if attention_mask is not None:
        values = _integers(attention_mask, "attention_mask", shape)
        if values.size and not 0 <= values.min() <= values.max() <= 1:
            raise InputError(f"attention_mask: expected 0 and 1, got values from {values.min()} to {values.max()}")
        mask = values.astype(bool)

    kept = mask.copy()
    if keep == "all":
        kept[:] = True
    elif keep == "first":
        kept[:, :1] = True
    position_ids = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    attended = mask[kept]
    batch = Batch(
        input_ids[kept].astype(np.int32),
        type_ids[kept].astype(np.int32),
        position_ids[kept],
        np.concatenate(([0], np.cumsum(kept.sum(axis=1, dtype=np.int64)))),
        None if attended.all() else attended,
    )
    return batch, kept


def pad(values: np.ndarray, kept: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """Put one row a token back into a padded array.

    Parameters
    ----------
    values : (T, C) float32 array
    kept : (N, S) bool array
        From `from_padded`; T elements are True.
    visible : (T,) bool array, optional
        Tokens whose rows are wanted; None for all.

    Returns
    -------
    (N, S, C) float32 array
        Zero where there is no token, or none that is wanted.
    """
    padded = np.zeros((*kept.shape, values.shape[1]), np.float32)
    padded[kept] = values if visible is None else np.where(visible[:, None], values, np.float32(0))
    return padded


def split_by_budget(lengths: Sequence[int], budget: int, max_texts: int | None = None) -> Iterator[tuple[int, int]]:
    """Cut a row of texts into runs of at most `budget` tokens and `max_texts` texts; a text is never cut.

    Yields
    ------
    start, stop : int
        A run, never empty: a text longer than the budget is a run of its own.
    """
    start = tokens = 0
    for index, length in enumerate(lengths):
        full = tokens + length > budget or (max_texts is not None and index - start >= max_texts)
        if full and index > start:
            yield start, index
            start, tokens = index, 0
        tokens += length
    if start < len(lengths):
        yield start, len(lengths)


def _integers(array, name: str, shape: tuple[int, ...] | None) -> np.ndarray:
    try:
        array = np.asarray(array)
    except (ValueError, TypeError, OverflowError) as error:  # such as rows of different lengths
        raise InputError(f"{name}: expected a padded 2-D array of integers, got none: {error}") from None
    if array.ndim != 2 or (array.dtype.kind not in "iub" and array.size):
        raise InputError(
            f"{name}: expected a padded 2-D array of integers, got {array.dtype} of shape {array.shape}; "
            "one row a text, filled up to the longest"
        )
    if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise InputError(f"{name}: expected 32-bit integers, got values from {array.min()} to {array.max()}")
    if shape is not None and array.shape != shape:
        raise InputError(f"{name}: expected the shape of input_ids, {shape}, got {array.shape}")
    return array
