"""Linear layers on packed weights, attention and layer norm: the checked door to the dense kernels.

Every output element is one chain of additions in a fixed order, so a token's result does not depend on the batch around
it, on its order or on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _door
from ._door import _cmm
from .batch import Batch
from .errors import InputError
from .packed import PackedFFF

__all__ = ["DTYPES", "CompiledLayer", "PackedLinear", "attention", "is_available", "layer_norm"]

DTYPES = ("float32", "bfloat16", "int8")
# Multiply-adds that cost as much as one of a tree walk, in which `_door.SERIAL_BELOW` counts. Measured on one short
# text of MiniLM: a second thread pays from some 80 microseconds of work on.
CHEAPER = {"float32": 25, "bfloat16": 50, "int8": 100}


def is_available() -> bool:
    """Whether the compiled kernels are there; without them the functions of this module must not be called."""
    return _cmm is not None


def is_packed(trees: Any) -> bool:
    """Whether these are trees that `CompiledLayer` takes."""
    return isinstance(trees, PackedFFF) and trees._layer is not None


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
        self.row_work = weight.size / CHEAPER[dtype]
        kind = _cmm.NO_ACTIVATION if activation is None else _cmm.ACTIVATIONS[activation]
        self.panels = _cmm.PackedPanels(weight, bias, kind, dtype, _door.num_threads_for(weight.size, None))

    @property
    def nbytes(self) -> int:
        """Memory of the packed weights."""
        return self.panels.nbytes

    def __call__(self, x: np.ndarray, residual: np.ndarray | None = None, num_threads: int | None = None) -> np.ndarray:
        """Apply the layer: (T, I) float32, and residual (T, O) or None -> (T, O) float32."""
        x = _door.tokens_array(x, self.shape[1])
        y = np.empty((len(x), self.shape[0]), np.float32)
        if residual is not None:
            residual = _door.float32_array(residual, "residual", 2)
            _door.check_shape(residual, "residual", y.shape, "(T, O)")
        if len(x):
            work = int(len(x) * self.row_work)
            self.panels.forward(x, residual, _door.num_threads_for(work, num_threads), y)
        return y


class CompiledLayer:
    """A whole encoder layer in one call: its packed parts, run group by group of texts while they are in the cache.

    Parameters
    ----------
    query_key_value, output : PackedLinear
    feed_forward : (PackedLinear, PackedLinear) or (PackedFFF, (H,) array or None)
    norm1, norm2 : (weight, bias, eps)
        Layer norms.
    num_heads : int
    scale : float
        Factor of the attention scores.
    norm_position : {"pre", "post"}

    Notes
    -----
    The same bits as the parts one after another. `ufbert.layers.EncoderLayer` checks that the parts fit.
    """

    def __init__(
        self,
        query_key_value: PackedLinear,
        output: PackedLinear,
        feed_forward: tuple[PackedLinear, PackedLinear] | tuple[PackedFFF, np.ndarray | None],
        norm1: tuple[np.ndarray, np.ndarray, float],
        norm2: tuple[np.ndarray, np.ndarray, float],
        num_heads: int,
        scale: float,
        norm_position: str,
    ) -> None:
        self.width = output.shape[0]
        self._row_work = query_key_value.row_work + output.row_work
        if isinstance(feed_forward[0], PackedFFF):
            trees, bias = feed_forward
            self._row_work += trees._work
            halves = trees._layer, None if bias is None else _door.float32_array(bias, "bias", 1)
        else:
            self._row_work += sum(linear.row_work for linear in feed_forward)
            halves = tuple(linear.panels for linear in feed_forward)
        norms = [(*(_door.float32_array(a, "norm", 1) for a in norm[:2]), norm[2]) for norm in (norm1, norm2)]
        self._kernel = _cmm.CompiledLayer(
            query_key_value.panels, output.panels, halves, *norms, num_heads, scale, norm_position == "pre"
        )

    def __call__(
        self,
        x: np.ndarray,
        batch: Batch,
        num_threads: int | None = None,
    ) -> np.ndarray:
        """Apply the layer to the tokens of a batch: (T, H) float32 -> (T, H) float32."""
        x = _door.tokens_array(x, self.width)
        if len(x) != batch.num_tokens:
            raise InputError(f"x: expected a row for each of the batch's {batch.num_tokens} tokens, got {len(x)}")
        y = np.empty_like(x)
        if len(x):
            threads = _door.num_threads_for(int(len(x) * self._row_work), num_threads)
            attended = None if batch.attended is None else np.ascontiguousarray(batch.attended).view(np.uint8)
            self._kernel.forward(x, batch.cu_seqlens, attended, batch.max_length, *batch.plan(threads), threads, y)
        return y


def _texts(cu_seqlens: np.ndarray, attended: np.ndarray | None, tokens: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The two as the kernels take them, checked."""
    cu_seqlens = np.ascontiguousarray(cu_seqlens, np.int64)
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens or (cu_seqlens[1:] < cu_seqlens[:-1]).any():
        raise InputError(f"cu_seqlens: expected to cut {tokens} tokens into texts, got {cu_seqlens}")
    if attended is not None:
        attended = np.ascontiguousarray(attended, np.uint8)
        _door.check_shape(attended, "attended", (tokens,), "(T,)")
    return cu_seqlens, attended


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
        if qkv.shape[1] % (3 * num_heads):
            raise InputError(f"qkv: expected (T, 3 * heads * size) with {num_heads} heads, got shape {qkv.shape}")
        cu_seqlens, attended = _texts(cu_seqlens, attended, len(qkv))
        lengths = np.diff(cu_seqlens)
        work = int(2 * lengths @ lengths) * context.shape[1] // CHEAPER["float32"]
        _cmm.attention(qkv, cu_seqlens, num_heads, scale, attended, _door.num_threads_for(work, num_threads), context)
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
