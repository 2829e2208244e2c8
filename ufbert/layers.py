"""The layers of an encoder: frozen weights and a ``__call__`` each. T tokens of a ragged batch, hidden size H."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import cmm, dense, ops
from .batch import Batch

__all__ = [
    "Activated",
    "Embeddings",
    "EncoderLayer",
    "FastFeedForward",
    "FeedForward",
    "GatedFeedForward",
    "Linear",
    "LinearLayer",
    "Norm",
    "SelfAttention",
]


@dataclass(frozen=True)
class Linear:
    """``activation(x @ weight.T + bias) + residual``, with weight (O, I) and bias (O,) or None.

    `ufbert.dense.PackedLinear` is called the same way, and stands in its place where the compiled kernels are.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    activation: str | None = None

    def __call__(self, x: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
        y = ops.linear(x, self.weight, self.bias)  # (T, I) -> (T, O)
        if self.activation is not None:
            y = ops.ACTIVATIONS[self.activation](y)
        return y if residual is None else y + residual


@dataclass(frozen=True)
class Activated:
    """A packed linear layer with an activation that the kernels do not know."""

    linear: dense.PackedLinear
    activation: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ops.ACTIVATIONS[self.activation](self.linear(x))  # (T, I) -> (T, O)


LinearLayer = Linear | dense.PackedLinear


@dataclass(frozen=True)
class Norm:
    """Layer norm with weight and bias (H,); RMS norm with weight (H,); scale norm with weight ()."""

    kind: str
    weight: np.ndarray
    bias: np.ndarray | None
    eps: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if self.bias is not None:
            return ops.layer_norm(x, self.weight, self.bias, self.eps)
        return {"rms_norm": ops.rms_norm, "scale_norm": ops.scale_norm}[self.kind](x, self.weight, self.eps)


@dataclass(frozen=True)
class Embeddings:
    """Sum of the tables' rows, then a norm. `position` and `token_type` may be None, `norm` too."""

    word: np.ndarray  # (vocab_size, H)
    position: np.ndarray | None  # (max_position_embeddings, H)
    token_type: np.ndarray | None  # (type_vocab_size, H)
    norm: Norm | None

    def __call__(self, batch: Batch) -> np.ndarray:
        x = self.word[batch.input_ids].astype(np.float32, copy=False)  # (T,) -> (T, H), a copy
        if self.token_type is not None:
            some = batch.token_type_ids.any()  # mostly all are 0, and one row is added to all
            x += self.token_type[batch.token_type_ids] if some else self.token_type[0]
        if self.position is not None:
            x += self.position[batch.position_ids]
        return x if self.norm is None else self.norm(x)


@dataclass(frozen=True)
class SelfAttention:
    """Multi-head self-attention within each text; `output` is None where the output projection is skipped."""

    query_key_value: LinearLayer
    output: LinearLayer | None
    num_heads: int
    scale: float

    def __call__(self, x: np.ndarray, batch: Batch, residual: np.ndarray) -> np.ndarray:
        qkv = self.query_key_value(x)  # (T, H) -> (T, 3H)
        context = ops.attention(qkv, batch.cu_seqlens, self.num_heads, self.scale, batch.attended)  # -> (T, H)
        return context + residual if self.output is None else self.output(context, residual)  # (T, H)


@dataclass(frozen=True)
class FeedForward:
    """Dense feed-forward layer; the activation is the first linear layer's own."""

    dense_in: LinearLayer | Activated
    dense_out: LinearLayer

    def __call__(self, x: np.ndarray, residual: np.ndarray) -> np.ndarray:
        return self.dense_out(self.dense_in(x), residual)  # (T, H) -> (T, I) -> (T, H)


@dataclass(frozen=True)
class GatedFeedForward:
    """Dense feed-forward layer with a gate: the intermediate's first half is the value, the second half the gate."""

    dense_in: LinearLayer
    dense_out: LinearLayer
    activation: str

    def __call__(self, x: np.ndarray, residual: np.ndarray) -> np.ndarray:
        value, gate = np.split(self.dense_in(x), 2, axis=-1)  # (T, H) -> (T, I)
        return self.dense_out(ops.ACTIVATIONS[self.activation](gate) * value, residual)  # (T, I / 2) -> (T, H)


@dataclass(frozen=True)
class FastFeedForward:
    """P binary trees of neurons, of which a token visits one path each. arXiv 2311.10770."""

    trees: cmm.PackedFFF
    bias: np.ndarray | None = None  # (H,), added to the trees' sum; the paper's layer has none

    def __call__(self, x: np.ndarray, residual: np.ndarray) -> np.ndarray:
        y = self.trees(x)  # (T, H) -> (T, H)
        if self.bias is not None:
            y += self.bias
        y += residual
        return y


@dataclass(frozen=True)
class EncoderLayer:
    """Attention and feed-forward, each with a residual sum and a norm after ("post") or before ("pre") it.

    `compiled` does the same in one call, where all parts are packed: the same bits, without Python in between.
    """

    attention: SelfAttention
    feed_forward: FeedForward | GatedFeedForward | FastFeedForward
    norm1: Norm
    norm2: Norm
    norm_position: str
    compiled: dense.CompiledLayer | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", _compiled(self))

    def __call__(self, x: np.ndarray, batch: Batch) -> np.ndarray:
        if self.compiled is not None:
            return self.compiled(x, batch)
        return self.in_parts(x, batch)

    def in_parts(self, x: np.ndarray, batch: Batch) -> np.ndarray:
        """Run the parts one after another."""
        return self.traced(x, batch)[1]

    def traced(self, x: np.ndarray, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Run the parts one after another; return what the feed-forward layer reads, and what the layer gives."""
        if self.norm_position == "pre":
            x = self.attention(self.norm1(x), batch, residual=x)
            read = self.norm2(x)
            return read, self.feed_forward(read, residual=x)
        read = self.norm1(self.attention(x, batch, residual=x))
        return read, self.norm2(self.feed_forward(read, residual=read))


def _compiled(layer: EncoderLayer) -> dense.CompiledLayer | None:
    """Put packed parts together, if all of them are packed and all norms layer norms."""
    attention, feed_forward = layer.attention, layer.feed_forward
    norms: list[Any] = [(norm.weight, norm.bias, norm.eps) for norm in (layer.norm1, layer.norm2)]
    linears: list[Any] = [attention.query_key_value, attention.output]
    halves: Any
    if isinstance(feed_forward, FeedForward):
        halves = feed_forward.dense_in, feed_forward.dense_out
        linears += halves
    elif isinstance(feed_forward, FastFeedForward) and dense.is_packed(feed_forward.trees):
        halves = feed_forward.trees, feed_forward.bias
    else:
        return None
    if any(bias is None for _, bias, _ in norms) or not all(isinstance(part, dense.PackedLinear) for part in linears):
        return None
    heads, scale = attention.num_heads, attention.scale
    return dense.CompiledLayer(linears[0], linears[1], halves, norms[0], norms[1], heads, scale, layer.norm_position)
