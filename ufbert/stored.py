"""Matrices as model files store them: pieces below each other, in 32 or 16 bits, widened when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bfloat16 import widen_bfloat16
from .int8 import Int8Matrix

__all__ = ["StoredMatrix", "stacked"]


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A matrix in pieces that may be mapped to a file. The kernels pack it without a copy in float32.

    Attributes
    ----------
    pieces : tuple of (R_i, C) arrays
        Aligned, C-contiguous, all float32, all float16, or all uint16: the bits of bfloat16.
    """

    pieces: tuple[NDArray[Any], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C)."""
        return sum(map(len, self.pieces)), self.pieces[0].shape[1]

    @property
    def nbytes(self) -> int:
        """Memory of the pieces, or pages of a file."""
        return sum(piece.nbytes for piece in self.pieces)

    def __getitem__(self, rows: NDArray[np.integer[Any]] | slice) -> NDArray[np.float32]:
        """Return rows as float32."""
        whole = self.pieces[0] if len(self.pieces) == 1 else np.concatenate(self.pieces)
        found = whole[rows]
        return widen_bfloat16(found) if found.dtype == np.uint16 else found.astype(np.float32, copy=False)


Matrix = NDArray[np.float32] | Int8Matrix | StoredMatrix


def stacked(matrices: Sequence[Matrix]) -> Matrix:
    """Put matrices of one width below each other: as they are stored, where they are stored alike."""
    eights = [matrix for matrix in matrices if isinstance(matrix, Int8Matrix) and matrix.columns is None]
    if len(eights) == len(matrices):
        return Int8Matrix(np.concatenate([m.values for m in eights]), np.concatenate([m.scale for m in eights]))
    pieces = [piece for matrix in matrices if isinstance(matrix, StoredMatrix) for piece in matrix.pieces]
    if all(isinstance(matrix, StoredMatrix) for matrix in matrices) and len({piece.dtype for piece in pieces}) == 1:
        return StoredMatrix(tuple(pieces))
    return np.concatenate([matrix[:] for matrix in matrices])
