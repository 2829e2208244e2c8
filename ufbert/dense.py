"""Linear layers on packed weights, attention and layer norm: the checked door to the dense kernels.

Every output element is one chain of additions in a fixed order, so a token's result does not depend on the batch around
it, on its order or on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _door
from ._door import _cmm
from .errors import InputError

__all__ = ["DTYPES", "PackedLinear", "attention", "is_available", "layer_norm"]

DTYPES = ("float32", "bfloat16", "int8")
# Multiply-adds that cost as much as one of a tree walk, in which `_door.SERIAL_BELOW` counts. Measured on one short
# text of MiniLM: a second thread pays from some 80 microseconds of work on.
CHEAPER = {"float32": 25, "bfloat16": 50, "int8": 100}


def is_available() -> bool:
    """Whether the compiled kernels are there; without them the functions of this module must not be called."""
    return _cmm is not None


class PackedLinear:
    """``activation(x @ weight.T + bias) + residual`` with weights in the kernels' layout.

    Parameters
    ----------
    weight : (O, I) array
    bias : (O,) array, optional
    activation : {"gelu", "relu", "silu", "tanh"}, optional
    dtype : {"float32", "bfloat16", "int8"}
        "bfloat16": weights and inputs are rounded to bfloat16, sums are float32. "int8": weights are rounded to 8 bits
        with a scale for each output, inputs as they come, with a scale and an offset for each row; sums are exact.

    Raises
    ------
    InputError
        If a shape or an argument does not fit.
    """

    def __init__(self, weight: Any, bias: Any = None, activation: str | None = None, dtype: str = "float32") -> None:
        weight = _door.float32_array(weight, "weight", 2)
        if bias is not None:
            bias = _door.float32_array(bias, "bias", 1)
            _door.check_shape(bias, "bias", weight.shape[:1], "(O,)")
        if activation is not None:
            _door.check_activation(activation)
        if dtype not in DTYPES:
            raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        if 0 in weight.shape:
            raise InputError(f"weight: expected no empty axis, got shape {weight.shape}")
        self.shape = weight.shape
        self._row_work = weight.size / CHEAPER[dtype]
        kind = _cmm.NO_ACTIVATION if activation is None else _cmm.ACTIVATIONS[activation]
        self._panels = _cmm.PackedPanels(weight, bias, kind, dtype)

    @property
    def nbytes(self) -> int:
        """Memory of the packed weights."""
        return self._panels.nbytes

    def __call__(self, x: np.ndarray, residual: np.ndarray | None = None, num_threads: int | None = None) -> np.ndarray:
        """Apply the layer: (T, I) float32, and residual (T, O) or None -> (T, O) float32."""
        x = _door.tokens_array(x, self.shape[1])
        y = np.empty((len(x), self.shape[0]), np.float32)
        if residual is not None:
            residual = _door.float32_array(residual, "residual", 2)
            _door.check_shape(residual, "residual", y.shape, "(T, O)")
        if len(x):
            work = int(len(x) * self._row_work)
            self._panels.forward(x, residual, _door.num_threads_for(work, num_threads), y)
        return y


def attention(
    qkv: np.ndarray,
    cu_seqlens: np.ndarray,
    num_heads: int,
    scale: float,
    attended: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """Softmax attention of each text on itself; see `ufbert.ops.numpy_attention`, whose arguments these are."""
    qkv = _door.float32_array(qkv, "qkv", 2)
    context = np.empty((len(qkv), qkv.shape[1] // 3), np.float32)
    if len(qkv):
        cu_seqlens = np.ascontiguousarray(cu_seqlens, np.int64)
        lengths = np.diff(cu_seqlens)
        whole = cu_seqlens[0] == 0 and cu_seqlens[-1] == len(qkv) and lengths.min() >= 0
        if qkv.shape[1] % (3 * num_heads) or not whole:
            raise InputError(f"qkv: expected (T, 3 * heads * size) cut by cu_seqlens, got {qkv.shape}, {cu_seqlens}")
        if attended is not None:
            attended = np.ascontiguousarray(attended, np.uint8)
            _door.check_shape(attended, "attended", (len(qkv),), "(T,)")
        work = int(2 * lengths @ lengths) * context.shape[1] // CHEAPER["float32"]
        _cmm.attention(
            qkv, cu_seqlens, num_heads, scale, attended, _door.num_threads_for(work, num_threads), context
        )
    return context


def layer_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float, num_threads: int | None = None
) -> np.ndarray:
    """Layer normalisation over the last axis: (T, H) -> (T, H); see `ufbert.ops.numpy_layer_norm`."""
    x = _door.float32_array(x, "x", 2)
    weight, bias = _door.float32_array(weight, "weight", 1), _door.float32_array(bias, "bias", 1)
    for name, array in (("weight", weight), ("bias", bias)):
        _door.check_shape(array, name, x.shape[1:], "(H,)")
    y = np.empty_like(x)
    if x.size:
        _cmm.layer_norm(x, weight, bias, eps, _door.num_threads_for(8 * x.size, num_threads), y)
    return y
