"""The layers of an encoder: frozen weights and a ``__call__`` each. T tokens of a ragged batch, hidden size H."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import dense, reference
from .batch import Batch
from .dense import FusedLayer, Linear
from .int8 import FactoredRows, Int8Matrix

__all__ = [
    "Embeddings",
    "EncoderLayer",
    "FastFeedForward",
    "FeedForward",
    "GatedFeedForward",
    "Linear",
    "Norm",
    "SelfAttention",
    "Trees",
]

Floats = NDArray[np.float32]
ROWS_AT_ONCE = 256  # of embeddings, which then stay in the cache while they are summed


@dataclass(frozen=True, eq=False, repr=False)
class Norm:
    """Layer norm with weight and bias (H,); RMS norm with weight (H,); scale norm with weight ()."""

    kind: str
    weight: Floats
    bias: Floats | None
    eps: float

    def __call__(self, x: Floats) -> Floats:
        """(T, H) -> (T, H)."""
        if self.bias is not None:
            return dense.layer_norm(x, self.weight, self.bias, self.eps)
        norm = reference.rms_norm if self.kind == "rms_norm" else reference.scale_norm
        return norm(x, self.weight, self.eps)

    def __repr__(self) -> str:
        return f"Norm({self.kind}, eps {self.eps:g})"


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """Sum of the tables' rows, then a norm and a projection to the layers' width; all but `word` may be None."""

    word: NDArray[np.floating[Any]] | Int8Matrix  # (vocab_size, E), where E is H without a projection
    position: Floats | None  # (max_position_embeddings, E)
    token_type: Floats | None  # (type_vocab_size, E)
    norm: Norm | None
    projection: Linear | None = None

    @property
    def width(self) -> int:
        """What the layers read."""
        return int(self.word.shape[1] if self.projection is None else self.projection.shape[0])

    def __call__(self, batch: Batch) -> Floats:
        """T tokens -> (T, H)."""
        x = np.empty((batch.num_tokens, self.word.shape[1]), np.float32)  # (T, E)
        some = self.token_type is not None and batch.token_type_ids.any()  # usually all zero: no row but the first
        for start in range(0, len(x), ROWS_AT_ONCE):
            tokens = slice(start, start + ROWS_AT_ONCE)
            rows = x[tokens]
            rows[:] = self.word[batch.input_ids[tokens]]
            if self.token_type is not None:
                rows += self.token_type[batch.token_type_ids[tokens]] if some else self.token_type[0]
            if self.position is not None:
                rows += self.position[batch.position_ids[tokens]]
        x = x if self.norm is None else self.norm(x)
        return x if self.projection is None else self.projection(x)  # (T, E) -> (T, H)

    def __repr__(self) -> str:
        return f"Embeddings({self.word.shape[0]} x {self.word.shape[1]}, {self.word.dtype})"


@dataclass(frozen=True, eq=False)
class SelfAttention:
    """Multi-head self-attention within each text; `output` is None where the output projection is skipped.

    Where they are there, `distance_bias` is added to the scores, `rotations` turn queries and keys, and no key stands
    further than `window` from its query; see `ufbert.reference.attention`.
    """

    query_key_value: Linear
    output: Linear | None
    num_heads: int
    scale: float
    distance_bias: Floats | None = field(default=None, repr=False)
    rotations: Floats | None = field(default=None, repr=False)
    window: int | None = None

    def __call__(self, x: Floats, batch: Batch, residual: Floats) -> Floats:
        """(T, H) -> (T, H), the residual added."""
        qkv = self.query_key_value(x)  # (T, H) -> (T, 3H)
        positions = self.distance_bias, self.rotations, self.window
        context = dense.attention(  # (T, 3H) -> (T, H)
            qkv, batch.cu_seqlens, self.num_heads, self.scale, batch.attended, *positions
        )
        return context + residual if self.output is None else self.output(context, residual)  # (T, H)


@dataclass(frozen=True, eq=False)
class FeedForward:
    """Dense feed-forward layer; the activation is the first linear layer's own."""

    dense_in: Linear
    dense_out: Linear

    def __call__(self, x: Floats, residual: Floats) -> Floats:
        """(T, H) -> (T, I) -> (T, H), the residual added."""
        return self.dense_out(self.dense_in(x), residual)


@dataclass(frozen=True, eq=False)
class GatedFeedForward:
    """Dense feed-forward layer with a gate: the intermediate's first half is the value, the second half the gate."""

    dense_in: Linear
    dense_out: Linear
    activation: str

    def __call__(self, x: Floats, residual: Floats) -> Floats:
        """(T, H) -> (T, H), the residual added."""
        gated = dense.gate(self.dense_in(x), self.activation)  # (T, H) -> (T, I) -> (T, I / 2)
        return self.dense_out(gated, residual)  # -> (T, H)


class AnyTrees(Protocol):
    """Trees of neurons: `Trees`, `ufbert.cmm.PackedFFF`, or what stands in their place."""

    def __call__(self, x: Floats, /) -> Floats:
        """(T, H) -> (T, H)."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Trees:
    """P trees of n nodes as plain arrays, which NumPy walks; `ufbert.checkpoint.pack` makes a `PackedFFF` of them."""

    w_in: Floats | FactoredRows  # (P, n, H)
    b_in: Floats  # (P, n)
    w_out: Floats | FactoredRows  # (P, n, H)
    depth: int
    activation: str
    columns: Floats | None = None  # (H,), what float32 w_out is divided by before it is rounded to 8 bits

    def __call__(self, x: Floats, /) -> Floats:
        """(T, H) -> (T, H)."""
        w_in, w_out = (r.rounded() if isinstance(r, FactoredRows) else r for r in (self.w_in, self.w_out))
        y = reference.fff_walk(x, w_in, self.b_in, w_out, self.depth, activation=self.activation)
        return np.asarray(y)

    def __repr__(self) -> str:
        return f"Trees({len(self.b_in)}x{self.depth}, {self.activation}, plain)"


@dataclass(frozen=True, eq=False, repr=False)
class FastFeedForward:
    """P binary trees of neurons; a token visits one path in each. arXiv 2311.10770."""

    trees: AnyTrees
    bias: Floats | None = None  # (H,), added to the trees' sum; the paper's layer has none

    def __call__(self, x: Floats, residual: Floats) -> Floats:
        """(T, H) -> (T, H), bias and residual added."""
        y = self.trees(x)
        if self.bias is not None:
            y += self.bias
        y += residual
        return y

    def __repr__(self) -> str:
        return f"FastFeedForward({self.trees}{'' if self.bias is None else ', bias'})"


@dataclass(frozen=True, eq=False, repr=False)
class EncoderLayer:
    """Attention and feed-forward, each with a residual sum and a norm after ("post") or before ("pre") it.

    A layer with norms before may have no first one, as ModernBERT's first layer, which reads the embeddings' norm.
    `fused` does the same in one call: the same bits, without Python in between. Where it is None, the parts run one by
    one, and `not_fused` says why.
    """

    attention: SelfAttention
    feed_forward: FeedForward | GatedFeedForward | FastFeedForward
    norm1: Norm | None
    norm2: Norm
    norm_position: str
    fused: FusedLayer | None = None
    not_fused: str = "plain arrays"

    def __call__(self, x: Floats, batch: Batch) -> Floats:
        """(T, H) -> (T, H)."""
        if self.fused is not None:
            return self.fused(x, batch)
        return self.in_parts(x, batch)

    def in_parts(self, x: Floats, batch: Batch) -> Floats:
        """Run the parts one after another."""
        return self.traced(x, batch)[1]

    def traced(self, x: Floats, batch: Batch) -> tuple[Floats, Floats]:
        """Run the parts one after another; return what the feed-forward layer reads, and what the layer gives."""
        if self.norm_position == "pre":
            x = self.attention(x if self.norm1 is None else self.norm1(x), batch, residual=x)
            read = self.norm2(x)
            return read, self.feed_forward(read, residual=x)
        read = self.attention(x, batch, residual=x)
        read = read if self.norm1 is None else self.norm1(read)
        return read, self.norm2(self.feed_forward(read, residual=read))

    def __repr__(self) -> str:
        how = "fused" if self.fused is not None else f"in parts: {self.not_fused}"
        return f"EncoderLayer({self.norm_position}-norm, {self.attention}, {self.feed_forward}, {how})"
