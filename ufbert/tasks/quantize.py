"""Embeddings in fewer bits, with the numbers of sentence-transformers' ``quantize_embeddings``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..errors import InputError

__all__ = ["PRECISIONS", "quantize_embeddings"]

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
RANGED = ("int8", "uint8")


def quantize_embeddings(
    embeddings: ArrayLike,
    precision: str,
    ranges: ArrayLike | None = None,
    calibration_embeddings: ArrayLike | None = None,
) -> NDArray[Any]:
    """Store embeddings in fewer bits.

    Parameters
    ----------
    embeddings : (N, dim) array of floats
    precision : {"float32", "int8", "uint8", "binary", "ubinary"}
        "int8", "uint8": each dimension's range is cut into 256 steps. "binary", "ubinary": one bit a dimension, whether
        it is above 0; eight of them in a byte, the first in its highest bit; "binary" is "ubinary" minus 128.
    ranges : (2, dim) array, optional
        Least and largest value of each dimension, for "int8" and "uint8". Use the same for all that is compared.
    calibration_embeddings : (M, dim) array, optional
        What `ranges` are taken of; by default `embeddings` themselves.

    Returns
    -------
    (N, dim) array of `precision`, or (N, ceil(dim / 8)) for bits

    Raises
    ------
    InputError
        If an argument does not fit, or ranges would be taken of one embedding.
    """
    checks.choice(precision, "precision", PRECISIONS)
    values = _floats(embeddings, "embeddings")
    if values.ndim not in (1, 2):
        raise InputError(f"embeddings: expected an array (N, dim), got shape {values.shape}")
    if precision == "float32":
        return values.astype(np.float32, copy=False)
    if precision in RANGED:
        return _scalar(values, precision, ranges, calibration_embeddings)
    bits = np.packbits(values > 0, axis=-1)
    signed: NDArray[Any] = bits if precision == "ubinary" else (bits - np.uint8(128)).view(np.int8)
    return signed


def _scalar(
    values: NDArray[Any], precision: str, ranges: ArrayLike | None, calibration: ArrayLike | None
) -> NDArray[Any]:
    dtype = np.dtype(precision)
    if values.shape[0] == 0:
        return values.astype(dtype)
    if ranges is None:
        known = values if calibration is None else _floats(calibration, "calibration_embeddings")
        if known.ndim != 2 or len(known) < 2:
            raise InputError(
                f"precision: expected two embeddings or more to take the ranges of {precision} from, got one; give "
                "ranges or calibration_embeddings to ufbert.quantize_embeddings, or take precision='binary'"
            )
        ranges = np.stack([known.min(0), known.max(0)])
    edges = _floats(ranges, "ranges").astype(np.float32)
    if edges.shape != (2, values.shape[-1]):
        raise InputError(f"ranges: expected shape (2, {values.shape[-1]}), got {edges.shape}")
    steps = (edges[1] - edges[0]) / 255
    steps = np.where(steps == 0, np.float32(1), steps)
    levels: NDArray[Any] = np.clip(np.floor((values - edges[0]) / steps), 0, 255)
    return (levels - 128).astype(np.int8) if precision == "int8" else levels.astype(np.uint8)


def _floats(value: ArrayLike, name: str) -> NDArray[Any]:
    try:
        found = np.asarray(value)
    except (ValueError, TypeError) as error:  # such as rows of different lengths
        raise InputError(f"{name}: expected an array of floats, could not convert it: {error}") from None
    if found.dtype.kind != "f":
        raise InputError(f"{name}: expected an array of floats, got dtype {found.dtype}; quantise floats only once")
    return found
