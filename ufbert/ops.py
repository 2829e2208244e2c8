"""The dense operations of an encoder on flat token arrays, in float32.

Attention and layer norm are the compiled ones where these are installed, else NumPy's, which are also what the compiled
ones are tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from . import dense

__all__ = [
    "ACTIVATIONS",
    "attention",
    "layer_norm",
    "linear",
    "numpy_attention",
    "numpy_layer_norm",
    "rms_norm",
    "scale_norm",
    "softmax",
]

_BLOCK = 65_536  # floats of a block that an elementwise chain keeps in L2
_SCORES = 1 << 20  # floats of attention scores at a time: 4 MB
_MASKED = np.float32(-10_000.0)  # what crammedBERT adds to the scores of masked keys


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """``x @ weight.T + bias``: (..., I) by (O, I) and (O,) -> (..., O) float32."""
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


def numpy_layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    """Layer normalisation over the last axis: (T, H) -> (T, H). arXiv 1607.06450."""
    y = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...h,...h->...", y, y)[..., None] / np.float32(x.shape[-1])
    y *= 1.0 / np.sqrt(variance + np.float32(eps))
    y *= weight
    y += bias
    return y


def rms_norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    """Root-mean-square normalisation over the last axis: (T, H) -> (T, H). arXiv 1910.07467."""
    mean_square = np.einsum("...h,...h->...", x, x)[..., None] / np.float32(x.shape[-1])
    return x * (1.0 / np.sqrt(mean_square + np.float32(eps))) * scale


def scale_norm(x: np.ndarray, scale: np.ndarray, eps: float) -> np.ndarray:
    """Division by the Euclidean norm, times one learned number: (T, H) -> (T, H). arXiv 1910.05895."""
    norm = np.sqrt(np.einsum("...h,...h->...", x, x))[..., None]
    return x * scale / np.maximum(norm, np.float32(eps))


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    y = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


def numpy_attention(
    qkv: np.ndarray, cu_seqlens: np.ndarray, num_heads: int, scale: float, attended: np.ndarray | None = None
) -> np.ndarray:
    """Softmax attention of each text on itself. arXiv 1706.03762, section 3.2.1.

    Parameters
    ----------
    qkv : (T, 3H) float32 array
        Queries, keys and values side by side, each ``num_heads`` blocks of ``H / num_heads`` columns.
    cu_seqlens : (N + 1,) integer array
        Where each text begins and ends.
    num_heads : int
    scale : float
        Factor of the scores, normally ``head_size ** -0.5``.
    attended : (T,) bool array, optional
        False for tokens that nothing attends to.

    Returns
    -------
    (T, H) float32 array

    Notes
    -----
    Needs some 4 MB of scratch, or 4 * num_heads * S**2 bytes for one text of S tokens where that is more.
    """
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    head_size = width // num_heads
    context = np.empty((tokens, width), np.float32)
    for start, texts, length in _equal_lengths(cu_seqlens, num_heads):
        rows = slice(start, start + texts * length)
        q, k, v = qkv[rows].reshape(texts, length, 3, num_heads, head_size).transpose(2, 0, 3, 1, 4)
        scores = q @ k.swapaxes(-1, -2)  # (texts, heads, S, head_size) x (.., head_size, S) -> (texts, heads, S, S)
        scores *= np.float32(scale)
        if attended is not None:
            scores += np.where(attended[rows].reshape(texts, 1, 1, length), np.float32(0), _MASKED)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        weighted = scores @ v  # (texts, heads, S, S) x (.., S, head_size)
        weighted /= scores.sum(axis=-1, keepdims=True)
        context[rows].reshape(texts, length, num_heads, head_size)[...] = weighted.swapaxes(1, 2)
    return context


attention = dense.attention if dense.is_available() else numpy_attention
layer_norm = dense.layer_norm if dense.is_available() else numpy_layer_norm


def _equal_lengths(cu_seqlens: np.ndarray, num_heads: int) -> Iterator[tuple[int, int, int]]:
    """Runs of neighbouring texts of one length, so that one call serves all: first token, texts, length."""
    starts = cu_seqlens.tolist()
    first = 0
    for text in range(len(starts) - 1):
        length = starts[first + 1] - starts[first]
        is_last = text + 2 == len(starts)
        full = (text + 2 - first) * num_heads * length * length > _SCORES
        if is_last or full or starts[text + 2] - starts[text + 1] != length:
            if length:
                yield starts[first], text + 1 - first, length
            first = text + 1


def _blockwise(function: Callable[[np.ndarray], None]) -> Callable[[np.ndarray], np.ndarray]:
    """Let an in-place function of a flat array run over C-contiguous `x` block by block, so that it stays in cache."""

    def apply(x: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(x, np.float32)
        flat = x.reshape(-1)
        for start in range(0, flat.size, _BLOCK):
            function(flat[start : start + _BLOCK])
        return x

    return apply


@_blockwise
def gelu(x: np.ndarray) -> None:
    """Exact GELU, ``x * Phi(x)`` = ``max(x, 0) - |x| * (1 - Phi(|x|))``, to 1e-7.

    The tail is formula 26.2.17 of Abramowitz and Stegun, Handbook of Mathematical Functions (error < 7.5e-8).
    """
    magnitude = np.abs(x)
    np.minimum(magnitude, np.float32(20), out=magnitude)  # the tail is 0 from 14 on; inf * 0 would be NaN
    t = 1 / (1 + np.float32(0.2316419) * magnitude)
    tail = np.full_like(t, 1.330274429)
    for coefficient in (-1.821255978, 1.781477937, -0.356563782, 0.319381530):
        tail *= t
        tail += np.float32(coefficient)
    tail *= t
    tail *= magnitude
    magnitude *= magnitude
    magnitude *= np.float32(-0.5)
    tail *= np.exp(magnitude, out=magnitude)
    tail *= np.float32(1 / math.sqrt(2 * math.pi))
    np.maximum(x, 0, out=x)
    x -= tail


@_blockwise
def gelu_tanh(x: np.ndarray) -> None:
    """GELU with the tanh approximation: ``gelu_new``, ``gelu_pytorch_tanh``. arXiv 1606.08415."""
    inner = x * x
    inner *= np.float32(0.044715)
    inner += 1
    inner *= x
    inner *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(inner, out=inner)
    inner += 1
    x *= inner
    x *= np.float32(0.5)


@_blockwise
def sigmoid(x: np.ndarray) -> None:
    """Logistic function."""
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        np.divide(1, 1 + np.exp(-x), out=x)


@_blockwise
def relu(x: np.ndarray) -> None:
    """``max(x, 0)``."""
    np.maximum(x, 0, out=x)


@_blockwise
def tanh(x: np.ndarray) -> None:
    """Hyperbolic tangent."""
    np.tanh(x, out=x)


def silu(x: np.ndarray) -> np.ndarray:
    """``x * sigmoid(x)``, also called swish."""
    return x * sigmoid(x.copy())


def quick_gelu(x: np.ndarray) -> np.ndarray:
    """``x * sigmoid(1.702 x)``."""
    return x * sigmoid(np.float32(1.702) * x)


def mish(x: np.ndarray) -> np.ndarray:
    """``x * tanh(log(1 + exp(x)))``."""
    return x * np.tanh(np.logaddexp(x, np.float32(0)))


def identity(x: np.ndarray) -> np.ndarray:
    """`x` itself."""
    return x


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "silu": silu,
    "mish": mish,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "identity": identity,
}
"""Activations by their names in this package. They may overwrite their argument: (..., C) float32 -> the same shape."""
