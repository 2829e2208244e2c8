"""Matrices in 8 bits, as model files may store them: small whole numbers, and a factor for each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Int8Matrix", "quantize"]

LARGEST = 127  # -128 is left out, so that a matrix and its negative are rounded alike


@dataclass(frozen=True, eq=False)
class Int8Matrix:
    """A matrix of ``values * scale[:, None]``, which may be mapped to a file; rows are widened as they are looked up.

    Attributes
    ----------
    values : (R, C) int8 array
    scale : (R,) float32 array
    """

    values: NDArray[np.int8]
    scale: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """(R, C)."""
        return self.values.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the stored values."""
        return self.values.dtype

    def __getitem__(self, rows: NDArray[np.integer[Any]] | slice) -> NDArray[np.float32]:
        """Return rows as float32."""
        found = self.values[rows].astype(np.float32)
        found *= self.scale[rows][..., None]
        return found


def quantize(matrix: NDArray[np.float32]) -> Int8Matrix:
    """Round a matrix to 8 bits, with factors that take the largest value of each row to 127.

    Parameters
    ----------
    matrix : (R, C) float32 array
        Finite.

    Returns
    -------
    Int8Matrix
        Errors are at most half of a row's factor. Rounding the result again gives the same values.
    """
    scale = (np.abs(matrix).max(axis=1, initial=0) / LARGEST).astype(np.float32)
    steps = matrix / np.where(scale > 0, scale, 1)[:, None]
    return Int8Matrix(np.rint(steps).clip(-LARGEST, LARGEST).astype(np.int8), scale)
