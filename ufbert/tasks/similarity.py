"""Similarity of embeddings: of each to each, and pair by pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InputError
from ..heads import normalize

__all__ = ["pairwise_similarity", "similarity"]

Rows = NDArray[np.float32]
ORDERS = {"euclidean": 2, "manhattan": 1}


def similarity(embeddings1: ArrayLike, embeddings2: ArrayLike, kind: str) -> Rows:
    """Compare every embedding with every other: (N, dim), (M, dim) -> (N, M)."""
    a, b = _two(embeddings1, embeddings2, kind)
    if a.shape[1] != b.shape[1]:
        raise InputError(f"embeddings: expected two arrays (N, dim) of one width, got {a.shape} and {b.shape}")
    if kind not in ORDERS:
        scores: Rows = a @ b.T
        return scores
    scores = np.empty((len(a), len(b)), np.float32)
    for row, embedding in zip(scores, a, strict=True):
        row[:] = -np.linalg.norm(b - embedding, ord=ORDERS[kind], axis=1)
    return scores


def pairwise_similarity(embeddings1: ArrayLike, embeddings2: ArrayLike, kind: str) -> Rows:
    """Compare embeddings that stand in the same place: (N, dim), (N, dim) -> (N,)."""
    a, b = _two(embeddings1, embeddings2, kind)
    if a.shape != b.shape:
        raise InputError(f"embeddings: expected two arrays (N, dim) of one shape, got {a.shape} and {b.shape}")
    if kind in ORDERS:
        distances: Rows = np.linalg.norm(a - b, ord=ORDERS[kind], axis=1)
        return -distances
    scores: Rows = np.einsum("nd,nd->n", a, b)
    return scores


def _two(embeddings1: ArrayLike, embeddings2: ArrayLike, kind: str) -> tuple[Rows, Rows]:
    try:
        a, b = (np.atleast_2d(np.asarray(each, np.float32)) for each in (embeddings1, embeddings2))
    except (ValueError, TypeError, OverflowError) as error:  # such as rows of different lengths
        raise InputError(f"embeddings: expected two arrays (N, dim) of numbers, got others: {error}") from None
    if a.ndim != 2 or b.ndim != 2:
        raise InputError(f"embeddings: expected two arrays (N, dim) of one width, got {a.shape} and {b.shape}")
    return (normalize(a), normalize(b)) if kind == "cosine" else (a, b)
