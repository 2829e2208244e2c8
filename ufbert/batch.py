"""Ragged batches: the tokens of all texts in one flat array, with no padding.

Every padding token would cost a walk down every tree, so padded arrays exist only at the border: `Batch.from_padded`
takes them apart and `pad` puts results back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .errors import InputError

__all__ = ["Batch", "Plan", "from_padded", "pad", "split_by_budget"]

# A thread takes whole texts through an encoder layer, this many tokens at a time: at least what a panel of weights is
# worth fetching for, at most what stays in its L2 cache.
LEAST_ROWS, MOST_ROWS = 32, 128
# With fewer groups than this for each thread, some threads would wait at the end: threads share out columns instead.
GROUPS_A_THREAD = 4


class Plan(NamedTuple):
    """How threads share a batch out in an encoder layer.

    Attributes
    ----------
    groups : (G + 1,) int64 array
        Group g has the texts ``groups[g]:groups[g + 1]``.
    largest : int
        Tokens of the largest group.
    by_columns : bool
        Whether threads share out columns and heads, for lack of groups.
    """

    groups: np.ndarray
    largest: int
    by_columns: bool


@dataclass(frozen=True, eq=False)
class Batch:
    """N texts of T tokens in all; checked when it is made, planned once for all layers.

    Attributes
    ----------
    input_ids, token_type_ids, position_ids : (T,) int32 array
    cu_seqlens : (N + 1,) int64 array
        Text i has the tokens ``cu_seqlens[i]:cu_seqlens[i + 1]``.
    attended : (T,) bool array or None
        False where a token is computed but no token may attend to it; None where there is no such token.

    Raises
    ------
    InputError
        If the arrays do not fit together.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    position_ids: np.ndarray
    cu_seqlens: np.ndarray
    attended: np.ndarray | None = None
    _plans: dict[int, Plan] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        ends, tokens = self.cu_seqlens, len(self.input_ids)
        if ends.dtype != np.int64 or ends.ndim != 1 or not ends.flags.c_contiguous or not len(ends):
            raise InputError(f"cu_seqlens: expected a contiguous (N + 1,) int64 array, got {ends.dtype} {ends.shape}")
        if ends[0] != 0 or ends[-1] != tokens or (ends[1:] < ends[:-1]).any():
            raise InputError(f"cu_seqlens: expected to cut {tokens} tokens into texts, got {ends}")
        if self.attended is not None and (self.attended.shape != (tokens,) or self.attended.dtype != np.bool_):
            raise InputError(f"attended: expected ({tokens},) bool, got {self.attended.shape} {self.attended.dtype}")

    @classmethod
    def from_sequences(
        cls, ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]], first_position: int = 0
    ) -> Batch:
        """Join token sequences, as a tokenizer gives them; see `from_padded` for `first_position`.

        Raises
        ------
        InputError
            If an id needs more than 32 bits.
        """
        cu_seqlens = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        total = cu_seqlens[-1]
        input_ids, types = _joined(ids, "input_ids", total), _joined(type_ids, "token_type_ids", total)
        return cls(input_ids, types, _positions(input_ids, cu_seqlens, first_position), cu_seqlens)

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.cu_seqlens) - 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all texts."""
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, (N,) int64."""
        lengths: np.ndarray = self.cu_seqlens[1:] - self.cu_seqlens[:-1]
        return lengths

    @cached_property
    def max_length(self) -> int:
        """Tokens of the longest text."""
        return int(self.lengths.max()) if len(self) else 0

    def plan(self, num_threads: int) -> Plan:
        """Plan an encoder layer for a number of threads, once."""
        if num_threads not in self._plans:
            ends = self.cu_seqlens.tolist()  # in Python: one text takes less than NumPy's calls do
            groups = _groups(ends, GROUPS_A_THREAD * num_threads)
            largest = max((ends[stop] - ends[start] for start, stop in pairwise(groups)), default=0)
            by_columns = num_threads > 1 and len(groups) - 1 < GROUPS_A_THREAD * num_threads
            self._plans[num_threads] = Plan(np.array(groups, np.int64), largest, by_columns)
        return self._plans[num_threads]

    def parts(self, budget: int, max_texts: int | None = None) -> Iterator[tuple[int, Batch]]:
        """Cut the batch as `split_by_budget` does: the number of the first text, and a batch of views."""
        if self.num_tokens <= budget and (max_texts is None or len(self) <= max_texts):
            yield 0, self
            return
        for start, stop in split_by_budget(self.lengths.tolist(), budget, max_texts):
            yield start, self.select(start, stop)

    def padded(self, padding: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pad to the longest text, with the id `padding`: input_ids, token_type_ids, attention_mask (N, S) int64."""
        kept = np.arange(self.max_length) < self.lengths[:, None]
        arrays = np.full(kept.shape, padding, np.int64), np.zeros(kept.shape, np.int64)
        for array, values in zip(arrays, (self.input_ids, self.token_type_ids), strict=True):
            array[kept] = values
        return *arrays, kept.astype(np.int64)

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


def from_padded(
    input_ids: ArrayLike,
    attention_mask: ArrayLike | None = None,
    token_type_ids: ArrayLike | None = None,
    keep: str = "attended",
    first_position: int = 0,
    keep_gaps: bool = False,
) -> tuple[Batch, np.ndarray]:
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
    first_position : int
        Position of a text's first token. Above 0, as in RoBERTa, the id ``first_position - 1`` is padding: it stands
        at that position itself and is not counted.
    keep_gaps : bool
        Also keep masked tokens that stand between kept ones, for a model that goes by distances in the row.

    Returns
    -------
    batch : Batch
        Positions count from the start of the row, masked tokens included, as Hugging Face's models count.
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
    if keep_gaps:
        kept = np.logical_or.accumulate(kept, 1) & np.logical_or.accumulate(kept[:, ::-1], 1)[:, ::-1]
    rows = np.arange(0, input_ids.size + 1, shape[1]) if shape[0] else np.zeros(1, np.int64)
    position_ids = _positions(input_ids.ravel(), rows, first_position).reshape(shape)
    attended = mask[kept]
    batch = Batch(
        input_ids[kept].astype(np.int32),
        type_ids[kept].astype(np.int32),
        position_ids[kept],
        np.cumsum([0, *kept.sum(axis=1)], dtype=np.int64),
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


def _groups(ends: Sequence[int], parts: int) -> list[int]:
    """Cut texts into groups, the number of the first text of each and the end: large ones, then ever smaller ones.

    A group has a share of the tokens that are left, ``1 / parts``, so that threads that take one after another end at
    nearly the same time.
    """
    groups, start = [0], 0
    for index, end in enumerate(ends[1:]):
        room = max(LEAST_ROWS, min(MOST_ROWS, (ends[-1] - ends[start]) // parts))
        if end - ends[start] > room and index > start:
            groups.append(index)
            start = index
    return [*groups, len(ends) - 1] if len(ends) > 1 else groups


def _positions(input_ids: np.ndarray, cu_seqlens: np.ndarray, first: int) -> np.ndarray:
    """Position of each token in its text, (T,) int32; see `from_padded`."""
    position_ids: np.ndarray
    starts = cu_seqlens[:-1]
    if first == 0:
        position_ids = np.arange(len(input_ids)) - np.repeat(starts, cu_seqlens[1:] - starts)
    else:
        counted = (input_ids != first - 1).astype(np.int64)
        counts = np.concatenate(([0], np.cumsum(counted)))
        before = np.repeat(counts[starts], cu_seqlens[1:] - starts)
        position_ids = counted * (counts[1:] - before) + (first - 1)
    return position_ids.astype(np.int32)


def _integers(array: ArrayLike, name: str, shape: tuple[int, ...] | None) -> np.ndarray:
    try:
        array = np.asarray(array)
    except (ValueError, TypeError, OverflowError) as error:  # such as rows of different lengths
        raise InputError(f"{name}: expected a padded 2-D array of integers, could not convert it: {error}") from None
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


def _joined(sequences: Sequence[Sequence[int]], name: str, total: int) -> np.ndarray:
    values = np.fromiter(chain.from_iterable(sequences), np.int64, total)  # before NumPy 2, int32 would wrap around
    if total and (largest := int(values.max())) > np.iinfo(np.int32).max:
        raise InputError(
            f"{name}: expected ids of 32 bits, found {largest}; are tokenizer and weights of the same model?"
        )
    return values.astype(np.int32)
