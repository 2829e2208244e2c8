"""What stands on an encoder: poolers, the masked-LM head, classifiers, sentence-embedding modules.

A head is called with the hidden states of a ragged batch; `keep` says which masked tokens it must still see
(see `ufbert.batch.from_padded`), `per_token` whether it gives a row for each token or for each text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .activations import TABLE
from .batch import Batch
from .layers import Linear, Norm

__all__ = [
    "Dense",
    "MaskedLMHead",
    "Normalize",
    "Pooler",
    "Pooling",
    "SequenceClassifier",
    "TokenClassifier",
    "Transform",
    "first_tokens",
    "normalize",
]


def first_tokens(hidden: np.ndarray, batch: Batch) -> np.ndarray:
    """Return the first token's row of each text, zeros where it has none: (T, H) -> (N, H)."""
    return _one_of_each(hidden, batch, batch.cu_seqlens[:-1])


def _one_of_each(hidden: np.ndarray, batch: Batch, tokens: np.ndarray) -> np.ndarray:
    """Return one token's row of each text, zeros where it has none: (T, H) -> (N, H)."""
    if len(hidden) == 0:
        return np.zeros((len(batch), hidden.shape[1]), np.float32)
    rows = hidden[np.clip(tokens, 0, len(hidden) - 1)]
    return np.where(batch.lengths[:, None] > 0, rows, np.float32(0))


def _reduce(reduction: np.ufunc, values: np.ndarray, batch: Batch) -> np.ndarray:
    """`reduction` over the tokens of each text, zeros where it has none: (T, H) -> (N, H)."""
    filled = batch.lengths > 0
    result = np.zeros((len(batch), values.shape[1]), np.float32)
    if filled.any():
        result[filled] = reduction.reduceat(values, batch.cu_seqlens[:-1][filled], axis=0)
    return result


def _mean(hidden: np.ndarray, batch: Batch, weights: np.ndarray | None = None) -> np.ndarray:
    """Mean over the tokens of each text, by their weights (T, 1); zeros where it has none: (T, H) -> (N, H)."""
    if weights is None:
        sums, total = _reduce(np.add, hidden, batch), batch.lengths[:, None].astype(np.float32)
    else:
        sums, total = (_reduce(np.add, values, batch) for values in (hidden * weights, weights))
    sums /= np.maximum(total, np.float32(1))
    return sums


def _without_first(hidden: np.ndarray, batch: Batch, count: int) -> tuple[np.ndarray, Batch]:
    """Leave out the first `count` tokens of each text."""
    lengths = batch.lengths
    starts = np.repeat(batch.cu_seqlens[:-1], lengths)
    kept = np.arange(batch.num_tokens) - starts >= count
    cu_seqlens = np.concatenate(([0], np.cumsum(np.maximum(lengths - count, 0))))
    ids, types, positions = batch.input_ids[kept], batch.token_type_ids[kept], batch.position_ids[kept]
    return hidden[kept], Batch(ids, types, positions, cu_seqlens)


@dataclass(frozen=True, eq=False)
class Pooler:
    """BERT's pooler: dense and tanh on the first token."""

    dense: Linear

    def __call__(self, hidden: np.ndarray, batch: Batch) -> np.ndarray:
        """(T, H) -> (N, H)."""
        return TABLE["tanh"](self.dense(first_tokens(hidden, batch)))


@dataclass(frozen=True, eq=False)
class MaskedLMHead:
    """Scores of the vocabulary; `dense` and `norm` are None where the head has no transform."""

    keep: ClassVar[str] = "attended"
    per_token: ClassVar[bool] = True

    dense: Linear | None
    activation: str
    norm: Norm | None
    decoder: Linear  # weight (V, H), mostly the word embeddings

    def __call__(self, hidden: np.ndarray, batch: Batch | None = None) -> np.ndarray:
        """Hidden states of M tokens (M, H) -> (M, V)."""
        if self.dense is not None and self.norm is not None:
            hidden = self.norm(TABLE[self.activation](self.dense(hidden)))  # (M, H)
        return self.decoder(hidden)  # -> (M, V)


@dataclass(frozen=True, eq=False)
class Transform:
    """Dense, activation and norm: what a classifier may stand on."""

    dense: Linear
    activation: str
    norm: Norm

    def __call__(self, hidden: np.ndarray) -> np.ndarray:
        """(M, H) -> (M, H)."""
        return self.norm(TABLE[self.activation](self.dense(hidden)))


@dataclass(frozen=True, eq=False)
class TokenClassifier:
    """A linear layer on every token: entities, or the start and end of an answer. ModernBERT's has a transform."""

    keep: ClassVar[str] = "attended"
    per_token: ClassVar[bool] = True

    classifier: Linear
    transform: Transform | None = None

    def __call__(self, hidden: np.ndarray, batch: Batch | None = None) -> np.ndarray:
        """(T, H) -> (T, C)."""
        return self.classifier(hidden if self.transform is None else self.transform(hidden))


@dataclass(frozen=True, eq=False)
class SequenceClassifier:
    """A text classifier: pooler, dense (or None), activation, norm (or None), linear.

    The pooler "zero_index" takes the first token, "mean" the average of a text. "avg", "max" and "lse" run over all
    positions of a padded row, padding included, as crammedBERT does.
    """

    per_token: ClassVar[bool] = False

    pooler: str
    dense: Linear | None
    activation: str
    classifier: Linear
    norm: Norm | None = None

    @property
    def keep(self) -> str:
        """Masked tokens that the pooler reads."""
        return {"zero_index": "first", "mean": "attended"}.get(self.pooler, "all")

    def __call__(self, hidden: np.ndarray, batch: Batch) -> np.ndarray:
        """(T, H) -> (N, C)."""
        pooled = self._pool(hidden, batch)  # (N, H)
        if self.dense is not None:
            pooled = self.dense(pooled)
        pooled = TABLE[self.activation](pooled)
        return self.classifier(pooled if self.norm is None else self.norm(pooled))  # -> (N, C)

    def _pool(self, hidden: np.ndarray, batch: Batch) -> np.ndarray:
        if self.pooler == "zero_index":
            return first_tokens(hidden, batch)
        if self.pooler == "max":
            return _reduce(np.maximum, hidden, batch)
        if self.pooler == "lse":
            return _reduce(np.logaddexp, hidden, batch)
        if self.pooler == "mean" and batch.attended is not None:  # masked tokens may stand between others
            return _mean(hidden, batch, batch.attended.astype(np.float32)[:, None])
        return _mean(hidden, batch)


@dataclass(frozen=True, eq=False)
class Pooling:
    """sentence-transformers' pooling; several `modes` are joined in the order given.

    The modes are "cls", "max", "mean", "mean_sqrt_len", "lasttoken" and "weightedmean", where a token counts as often
    as its place in the text says.
    """

    modes: tuple[str, ...]
    include_prompt: bool = True

    def __call__(self, hidden: np.ndarray, batch: Batch, prompt_tokens: int = 0) -> np.ndarray:
        """Pool (T, H) to (N, H * modes), without the first `prompt_tokens` of each text."""
        if prompt_tokens:
            hidden, batch = _without_first(hidden, batch, prompt_tokens)
        pooled = [self._pool(mode, hidden, batch, prompt_tokens) for mode in self.modes]
        return pooled[0] if len(pooled) == 1 else np.concatenate(pooled, axis=1)

    @staticmethod
    def _pool(mode: str, hidden: np.ndarray, batch: Batch, skipped: int) -> np.ndarray:
        if mode == "cls":
            return first_tokens(hidden, batch)
        if mode == "lasttoken":
            return _one_of_each(hidden, batch, batch.cu_seqlens[1:] - 1)
        if mode == "max":
            return _reduce(np.maximum, hidden, batch)
        if mode == "weightedmean":
            starts = np.repeat(batch.cu_seqlens[:-1], batch.lengths)
            weights = (np.arange(1 + skipped, 1 + skipped + batch.num_tokens) - starts).astype(np.float32)[:, None]
            return _mean(hidden, batch, weights)
        if mode == "mean":
            return _mean(hidden, batch)
        pooled: np.ndarray = _reduce(np.add, hidden, batch)
        pooled /= np.sqrt(np.maximum(batch.lengths, 1)[:, None].astype(np.float32))  # mean_sqrt_len
        return pooled


@dataclass(frozen=True, eq=False)
class Dense:
    """sentence-transformers' dense module: linear and activation on the pooled embedding.

    With `use_residual` the embedding itself is added, by `residual` brought to the new width where that is another.
    """

    linear: Linear
    activation: str
    use_residual: bool = False
    residual: Linear | None = None

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, I) -> (N, O)."""
        result = TABLE[self.activation](self.linear(embeddings))
        if self.use_residual:
            result += embeddings if self.residual is None else self.residual(embeddings)
        return result


class Normalize:
    """sentence-transformers' normalise module."""

    def __call__(self, embeddings: np.ndarray) -> np.ndarray:
        """(N, H) -> (N, H)."""
        return normalize(embeddings)


def normalize(embeddings: np.ndarray) -> np.ndarray:
    """Scale each row to Euclidean length 1; a zero row stays zero."""
    norms = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    scaled: np.ndarray = embeddings / np.maximum(norms, np.float32(1e-12))
    return scaled
