"""The layers of an encoder: frozen weights and a ``__call__`` each. T tokens of a ragged batch, hidden size H."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import cmm, ops
from .batch import Batch

__all__ = ["Embeddings", "EncoderLayer", "FastFeedForward", "FeedForward", "Linear", "Norm", "SelfAttention"]

Layer = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``, with weight (O, I) and bias (O,) or None."""

    weight: np.ndarray
    bias: np.ndarray | None = None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return ops.linear(x, self.weight, self.bias)  # (..., I) -> (..., O)


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
            x += self.token_type[batch.token_type_ids]
        if self.position is not None:
            x += self.position[batch.position_ids]
        return x if self.norm is None else self.norm(x)


@dataclass(frozen=True)
class SelfAttention:
    """Multi-head self-attention within each text; `output` is None where the output projection is skipped."""

    query_key_value: Linear
    output: Linear | None
    num_heads: int
    scale: float

    def __call__(self, x: np.ndarray, batch: Batch) -> np.ndarray:
        qkv = self.query_key_value(x)  # (T, H) -> (T, 3H)
        context = ops.attention(qkv, batch.cu_seqlens, self.num_heads, self.scale, batch.attended)  # -> (T, H)
        return context if self.output is None else self.output(context)  # (T, H)


@dataclass(frozen=True)
class FeedForward:
    """Dense feed-forward layer; gated, the first half of the intermediate is the value, the second the gate."""

    dense_in: Linear
    dense_out: Linear
    activation: str
    gated: bool = False

    def __call__(self, x: np.ndarray) -> np.ndarray:
        hidden = self.dense_in(x)  # (T, H) -> (T, I)
        activation = ops.ACTIVATIONS[self.activation]
        if self.gated:
            value, gate = np.split(hidden, 2, axis=-1)
            hidden = activation(gate) * value  # (T, I) -> (T, I / 2)
        else:
            hidden = activation(hidden)
        return self.dense_out(hidden)  # -> (T, H)


@dataclass(frozen=True)
class FastFeedForward:
    """P binary trees of n = 2**(depth + 1) - 1 neurons, of which a token visits depth + 1 each. arXiv 2311.10770."""

    w_in: np.ndarray  # (P, n, H)
    b_in: np.ndarray  # (P, n)
    w_out: np.ndarray  # (P, n, H)
    depth: int
    activation: str

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return cmm.fff_forward(x, self.w_in, self.b_in, self.w_out, self.depth, activation=self.activation)


@dataclass(frozen=True)
class EncoderLayer:
    """Attention and feed-forward, each with a residual sum and a norm after ("post") or before ("pre") it."""

    attention: SelfAttention
    feed_forward: Layer
    norm1: Norm
    norm2: Norm
    norm_position: str

    def __call__(self, x: np.ndarray, batch: Batch) -> np.ndarray:
        if self.norm_position == "pre":
            x = x + self.attention(self.norm1(x), batch)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x, batch))
        return self.norm2(x + self.feed_forward(x))
