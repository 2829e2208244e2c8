"""Matrices and rows of trees in 8 bits, as model files store them: small whole numbers, and a factor for each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .errors import InputError

__all__ = [
    "FactoredRows", "Int8Matrix", "column_sizes", "input_rows", "output_rows", "quantize", "quantize_levelled",
    "tree_rows",
]  # fmt: skip

SMALLEST, MOST = 2.0**-14, 65_504.0  # of the numbers that float16 has with all its digits
LARGEST = 127  # -128 is left out, so that a matrix and its negative are rounded alike


@dataclass(frozen=True, eq=False)
class Int8Matrix:
    """A matrix of ``values * scale[:, None]``, which may be mapped to a file; rows are widened as they are looked up.

    Attributes
    ----------
    values : (R, C) int8 array
    scale : (R,) float32 array
    columns : (C,) float32 array or None
        Factors of columns beside those of rows.
    """

    values: NDArray[np.int8]
    scale: NDArray[np.float32]
    columns: NDArray[np.float32] | None = None

    def transposed(self) -> Int8Matrix:
        """Return the matrix (C, R)."""
        columns = np.ones(self.values.shape[1], np.float32) if self.columns is None else self.columns
        return Int8Matrix(self.values.T, columns, self.scale)

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C)."""
        rows, columns = self.values.shape
        return rows, columns

    @property
    def nbytes(self) -> int:
        """Memory of values and factors, or pages of a file."""
        return self.values.nbytes + self.scale.nbytes + (0 if self.columns is None else self.columns.nbytes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the stored values."""
        return self.values.dtype

    def __getitem__(self, rows: NDArray[np.integer[Any]] | slice) -> NDArray[np.float32]:
        """Return rows as float32."""
        found = self.values[rows].astype(np.float32)
        found *= self.scale[rows][..., None]
        if self.columns is not None:
            found *= self.columns
        return found


def quantize(matrix: NDArray[np.float32], short_factors: bool = False) -> Int8Matrix:
    """Round a matrix to 8 bits, with factors that take the largest value of each row to 127.

    Parameters
    ----------
    matrix : (R, C) float32 array
        Finite.
    short_factors : bool
        Round the factors to float16 first, where all of them have all its digits.

    Returns
    -------
    Int8Matrix
        Errors are at most half of a row's factor. Rounding the result again gives the same values.
    """
    scale = (np.abs(matrix).max(axis=1, initial=0) / LARGEST).astype(np.float32)
    if short_factors and ((scale == 0) | ((scale >= SMALLEST) & (scale < MOST))).all():
        scale = scale.astype(np.float16).astype(np.float32)
    steps = matrix / np.where(scale > 0, scale, 1)[:, None]
    return Int8Matrix(np.rint(steps).clip(-LARGEST, LARGEST).astype(np.int8), scale)


def quantize_levelled(rows: NDArray[np.float32]) -> Int8Matrix:
    """Round rows to 8 bits after each column was divided by its size: for few columns much larger than the others."""
    columns = column_sizes(rows)
    matrix = quantize(rows / columns, short_factors=True)
    return Int8Matrix(matrix.values, matrix.scale, columns)


@dataclass(frozen=True, eq=False)
class FactoredRows:
    """Rows of the nodes of trees with factors: ``values * scales[..., None] * columns``.

    Attributes
    ----------
    values : (P, n, H) int8 or float array
        float32 values get scales of their own when they are rounded to 8 bits.
    scales : (P, n) array or None
        Of int8 values; None for 1.
    columns : (H,) array or None
        Positive, for output rows only; None for 1. In trained trees few columns are 10 to 50 times as large as most:
        under one scale a row they would cost the others their digits.
    """

    values: ArrayLike
    scales: ArrayLike | None = None
    columns: ArrayLike | None = None

    @classmethod
    def of(cls, rows: ArrayLike | FactoredRows, name: str, weight_dtype: str) -> FactoredRows:
        """Take rows for weights of that dtype: for "int8" as they are, else as float32 without factors."""
        found = rows if isinstance(rows, FactoredRows) else cls(rows)
        if weight_dtype == "int8" or (getattr(found.values, "dtype", None) != np.int8 and found.columns is None):
            return found
        found.factors(name, np.shape(found.values))
        return cls(found.rounded())

    @classmethod
    def levelled(cls, rows: NDArray[np.float32], columns: NDArray[np.float32] | None = None) -> FactoredRows:
        """Divide float32 rows by `columns`, by default the powers of two nearest to their columns' sizes."""
        columns = column_sizes(rows) if columns is None else columns
        return cls(rows / columns, None, columns)

    def factors(
        self, name: str, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        """Return the scales and the columns as the kernels take them, for values of that shape."""
        scales = columns = None
        if getattr(self.values, "dtype", None) == np.int8:
            ones = np.ones(shape[:2], np.float32)
            scales = ones if self.scales is None else checks.shaped(self.scales, f"{name}: scales", shape[:2], "(P, n)")
        elif self.scales is not None:
            raise InputError(f"{name}: scales: expected None for values that are not int8, got others; leave them out")
        if self.columns is not None:
            columns = checks.shaped(self.columns, f"{name}: columns", shape[2:], "(H,)")
            if not (columns > 0).all():
                raise InputError(f"{name}: columns: expected positive factors, got others; use 1 for columns of zeros")
        return scales, columns

    def rounded(self, weight_dtype: str = "float32") -> NDArray[np.float32]:
        """Return the rows as float32: for "int8", as they are in 8 bits."""
        values, scales = np.asarray(self.values), self.scales
        if weight_dtype == "int8" and values.dtype != np.int8:
            matrix = quantize(values.reshape(-1, values.shape[-1]).astype(np.float32, copy=False))
            values, scales = matrix.values.reshape(values.shape), matrix.scale.reshape(values.shape[:-1])
        rows = values.astype(np.float32)
        if scales is not None:
            rows *= np.asarray(scales, np.float32)[..., None]
        return rows if self.columns is None else rows * np.asarray(self.columns, np.float32)


def tree_rows(value: ArrayLike, name: str, ndim: int) -> NDArray[Any]:
    """Return rows of nodes (P, n, H) as the kernels pack them: int8 C-contiguous, all else as float32.

    float16 stays, and so does the order of (H, P, n), as files have output rows.
    """
    if not isinstance(value, np.ndarray) or value.ndim != ndim or value.dtype not in (np.int8, np.float16, np.float32):
        return checks.array(value, name, ndim)
    in_order = value.flags.c_contiguous or (value.dtype != np.int8 and np.moveaxis(value, -1, 0).flags.c_contiguous)
    return value if in_order else np.ascontiguousarray(value)


def input_rows(
    weight: NDArray[Any] | Int8Matrix, whole: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any] | FactoredRows:
    """Input rows of nodes as a file has them, (P * n, H), put into heaps by `whole`."""
    if isinstance(weight, Int8Matrix) and weight.columns is None:
        return FactoredRows(whole(weight.values), whole(weight.scale))
    return whole(weight[:])


def output_rows(
    weight: NDArray[Any] | Int8Matrix, whole: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any] | FactoredRows:
    """Output rows of nodes, which are the columns of a file's matrix (H, P * n): its factors of rows are of outputs."""
    if not isinstance(weight, Int8Matrix):
        return whole(weight.T)
    nodes = None if weight.columns is None else whole(weight.columns)
    return FactoredRows(whole(weight.values.T), nodes, np.where(weight.scale == 0, 1, weight.scale))


def column_sizes(rows: NDArray[np.float32], count: int | None = None) -> NDArray[np.float32]:
    """The power of two nearest to the root mean square of each column of rows (..., H); 1 where that is 0 or overflows.

    `count` is the number of rows with those of zeros that are left out.
    """
    rows = rows.reshape(-1, rows.shape[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        means = np.einsum("nh,nh->h", rows, rows) / max(1, len(rows) if count is None else count)
    usual = (means > 1e-36) & (means < 1e36)
    return np.exp2(np.where(usual, np.rint(np.log2(np.where(usual, means, 1)) / 2), 0)).astype(np.float32)
