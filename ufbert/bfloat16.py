"""bfloat16 in NumPy, which has no such dtype: the upper half of float32, as bits or as rounded values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["narrow_bfloat16", "round_to_bfloat16", "widen_bfloat16"]

Array = NDArray[Any]


def narrow_bfloat16(values: Array) -> NDArray[np.uint16]:
    """Bits, as uint16, of the bfloat16 nearest to float32 values; ties go to even, NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def widen_bfloat16(bits: Array) -> NDArray[np.float32]:
    """Float32 values of bfloat16 bits, given as uint16: bfloat16 is the upper half of float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def round_to_bfloat16(values: Array) -> NDArray[np.float32]:
    """The nearest bfloat16 values, as float32; ties go to even, NaN stays NaN."""
    return widen_bfloat16(narrow_bfloat16(values))
