"""Embeddings with few values that are not zero, and what is done with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["SparseEmbeddings", "SparseVector"]


class SparseVector(NamedTuple):
    """One embedding.

    Attributes
    ----------
    indices : (n,) int32 array
        Of the values that are not zero, ascending: ids of tokens.
    values : (n,) float32 array
    """

    indices: NDArray[np.int32]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, row: NDArray[np.float32], most: int | None = None) -> SparseVector:
        """Take what is not zero of a row (V,), at most the `most` largest."""
        indices = np.flatnonzero(row)
        if most is not None and len(indices) > most:
            indices = np.sort(indices[np.argpartition(-row[indices], most - 1)[:most]])
        return cls(indices.astype(np.int32), row[indices])


@dataclass(frozen=True, eq=False)
class SparseEmbeddings:
    """N sparse embeddings of one width, as a matrix of compressed rows.

    Attributes
    ----------
    indptr : (N + 1,) int64 array
        Row i has the values ``indptr[i]:indptr[i + 1]``.
    indices : (n,) int32 array
    values : (n,) float32 array
    dim : int
        Width: the size of the vocabulary.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    dim: int

    @classmethod
    def of(cls, rows: Sequence[SparseVector], dim: int) -> SparseEmbeddings:
        """Put rows together."""
        indptr = np.cumsum([0, *(len(row.values) for row in rows)], dtype=np.int64)
        indices = np.concatenate([np.zeros(0, np.int32), *(row.indices for row in rows)])
        return cls(indptr, indices, np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)]), dim)

    def __len__(self) -> int:
        """Number of embeddings."""
        return len(self.indptr) - 1

    def __iter__(self) -> Iterator[SparseVector]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> SparseVector:
        """Return one embedding, as views."""
        number = range(len(self))[index]
        part = slice(self.indptr[number], self.indptr[number + 1])
        return SparseVector(self.indices[part], self.values[part])

    @property
    def shape(self) -> tuple[int, int]:
        """(N, dim)."""
        return len(self), self.dim

    def toarray(self) -> NDArray[np.float32]:
        """Return all values, (N, dim) float32."""
        dense = np.zeros(self.shape, np.float32)
        dense[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.values
        return dense

    def to_scipy(self) -> Any:  # noqa: ANN401
        """Return a ``scipy.sparse.csr_array`` over the same memory.

        Raises
        ------
        InputError
            If SciPy is not installed.
        """
        try:
            sparse = import_module("scipy.sparse")
        except ImportError:
            raise InputError(
                "to_scipy: expected SciPy, it is not installed; install it, or use indptr, indices and values"
            ) from None
        return sparse.csr_array((self.values, self.indices, self.indptr), self.shape)

    def dot(self, other: SparseEmbeddings) -> NDArray[np.float32]:
        """Multiply each embedding with each of another's: (N, dim), (M, dim) -> (N, M).

        Raises
        ------
        InputError
            If the widths differ.
        """
        if self.dim != other.dim:
            raise InputError(f"embeddings: expected two of one width, got {self.dim} and {other.dim}")
        scores = np.zeros((len(self), len(other)), np.float32)
        filled = np.diff(self.indptr) > 0
        for column, one in zip(scores.T, other._dense(), strict=True):
            if filled.any():
                column[filled] = np.add.reduceat(self.values * one[self.indices], self.indptr[:-1][filled])
        return scores

    def dot_pairwise(self, other: SparseEmbeddings) -> NDArray[np.float32]:
        """Multiply each embedding with the one in its place of another's: two (N, dim) -> (N,), as `dot` has it.

        Raises
        ------
        InputError
            If the shapes differ.
        """
        if self.shape != other.shape:
            raise InputError(f"embeddings: expected two of one shape, got {self.shape} and {other.shape}")
        scores = np.zeros(len(self), np.float32)
        for index, (row, one) in enumerate(zip(self, other._dense(), strict=True)):
            if len(row.indices):
                scores[index] = np.add.reduceat(row.values * one[row.indices], [0])[0]
        return scores

    def _dense(self) -> Iterator[NDArray[np.float32]]:
        """Give each embedding with its zeros, (dim,), in memory that the next one takes over."""
        one = np.zeros(self.dim, np.float32)
        for row in self:
            one[row.indices] = row.values
            yield one
            one[row.indices] = 0

    def lengths(self) -> NDArray[np.float32]:
        """Euclidean lengths, (N,)."""
        found = (np.linalg.norm(row.values) for row in self)
        return np.fromiter(found, np.float32, len(self))
