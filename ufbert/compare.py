"""How near a sentence encoder comes to its teacher. Needs the extra ``glue``.

A Spearman ratio alone proves little: a BERT without its feed-forward layers, untrained, keeps 92 % of it. So nearness
to the teacher's embeddings and neighbours stands beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from .errors import InputError
from .glue.metrics import measure
from .tasks import SentenceEncoder

__all__ = ["Nearness", "ScoredPairs", "compare", "halves", "neighbours_kept", "reciprocal_rank"]

BLOCK = 1_024  # rows of the similarity matrix that are held at once
MIN_WORDS = 12  # of a text whose halves find each other


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of texts that people scored for similarity."""

    pairs: Sequence[tuple[str, str]]
    scores: Sequence[float]


@dataclass(frozen=True)
class Nearness:
    """What `compare` measures for one model.

    Attributes
    ----------
    model : str
    cosine, lowest_cosine : float
        Mean and smallest cosine to the teacher's embeddings of the texts.
    neighbours : float
        Mean share of the teacher's ten nearest texts that are among the model's ten.
    reciprocal_rank : float
        Mean of 1 / rank of a text's second half among all second halves, sought by its first half; 0 beyond the tenth.
    spearman : dict of str to float
        For each set of scored pairs.
    """

    model: str
    cosine: float
    lowest_cosine: float
    neighbours: float
    reciprocal_rank: float
    spearman: Mapping[str, float] = field(default_factory=dict)


def compare(
    teacher: str | os.PathLike[str],
    models: Sequence[str | os.PathLike[str]],
    texts: Sequence[str],
    scored: Mapping[str, ScoredPairs] | None = None,
    dtype: str = "float32",
    show_progress_bar: bool = False,
) -> list[Nearness]:
    """Measure models against their teacher.

    Parameters
    ----------
    teacher : str or path
        A sentence-transformers folder.
    models : sequence of str or path
        Folders to compare; the teacher itself comes first in the result.
    texts : sequence of str
        At least 11 texts that no model was trained on.
    scored : mapping of str to ScoredPairs, optional
        Sets of pairs with people's scores, by name.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Of the models; the teacher is float32.
    show_progress_bar : bool

    Returns
    -------
    list of Nearness

    Raises
    ------
    UfbertError
        If a model or an argument is not usable.
    """
    if len(texts) < 11:
        raise InputError(f"texts: expected at least 11, for ten neighbours of each, got {len(texts)}; give more")
    first, second = halves(texts)
    wanted: np.ndarray | None = None
    results = []
    for folder in (teacher, *models):
        encoder = SentenceEncoder(folder, dtype="float32" if wanted is None else dtype)

        def encode(some: Sequence[str], encoder: SentenceEncoder = encoder) -> np.ndarray:
            return encoder.encode(list(some), show_progress_bar=show_progress_bar, normalize_embeddings=True)

        embeddings = encode(texts)
        if wanted is None:
            wanted = embeddings
        if embeddings.shape != wanted.shape:
            raise InputError(f"{folder}: expected embeddings as wide as the teacher's, got {embeddings.shape[1]}")
        cosines = (embeddings * wanted).sum(1)
        spearman = {name: _spearman(encode, pairs) for name, pairs in (scored or {}).items()}
        rank = reciprocal_rank(encode(first), encode(second)) if first else float("nan")
        results.append(
            Nearness(
                os.path.basename(os.path.normpath(folder)), float(cosines.mean()), float(cosines.min()),
                neighbours_kept(wanted, embeddings), rank, spearman,
            )
        )  # fmt: skip
    return results


def neighbours_kept(wanted: np.ndarray, embeddings: np.ndarray, count: int = 10) -> float:
    """Mean share of each text's nearest `count` others, by cosine, that two sets of embeddings have in common.

    Parameters
    ----------
    wanted, embeddings : (N, dim) float arrays
        Of the same texts, rows of length 1.
    count : int
        Less than N.
    """
    shares = []
    for start in range(0, len(wanted), BLOCK):
        sets = [_nearest(rows, start, count) for rows in (wanted, embeddings)]
        shares += [len(set(a) & set(b)) / count for a, b in zip(*sets, strict=True)]
    return float(np.mean(shares))


def reciprocal_rank(queries: np.ndarray, documents: np.ndarray, count: int = 10) -> float:
    """Mean of 1 / rank of document i for query i, 0 beyond rank `count`: MRR@count, of (N, dim) rows of length 1."""
    total = 0.0
    for start in range(0, len(queries), BLOCK):
        similar = queries[start : start + BLOCK] @ documents.T
        own = similar[np.arange(len(similar)), start + np.arange(len(similar))]
        ranks = 1 + (similar > own[:, None]).sum(1)
        total += float(np.where(ranks <= count, 1 / ranks, 0).sum())
    return total / len(queries)


def _nearest(rows: np.ndarray, start: int, count: int) -> list[list[int]]:
    block = rows[start : start + BLOCK] @ rows.T
    block[np.arange(len(block)), start + np.arange(len(block))] = -np.inf  # not itself
    nearest: list[list[int]] = np.argpartition(-block, count - 1, axis=1)[:, :count].tolist()
    return nearest


def _spearman(encode: Callable[[Sequence[str]], np.ndarray], scored: ScoredPairs) -> float:
    first, second = (encode([pair[side] for pair in scored.pairs]) for side in (0, 1))
    return measure(["spearman"], scored.scores, (first * second).sum(1))["spearman"]


def halves(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """First and second halves of the texts that have enough words."""
    words = [words for text in texts if len(words := text.split()) >= MIN_WORDS]
    return [" ".join(w[: len(w) // 2]) for w in words], [" ".join(w[len(w) // 2 :]) for w in words]
