"""One vector for each token of a text, and scores by late interaction (ColBERT)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..batch import Batch
from ..checkpoint.multi_vector import load_multi_vector_model
from ..encoder import TOKEN_BUDGET
from ..errors import InputError
from ..text_model import ON_OVERFLOW, WINDOW, Window, check_batch_size, each_text
from .load import open_model

__all__ = ["MultiVectorEncoder", "maxsim"]

Vectors = NDArray[np.float32]


class MultiVectorEncoder:
    """Turns texts into a vector for each token, as sentence-transformers' ``MultiVectorEncoder`` (ColBERT) does.

    Parameters
    ----------
    folder : str or path
        A folder of sentence-transformers' ``MultiVectorEncoder``, of PyLate or of Stanford's ColBERT; or the name of a
        model of the Hugging Face hub.
    on_overflow : {"truncate", "warn", "error"}
        What to do with texts that are longer than the folder allows.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the encoder's matrix multiplications; see `ufbert.load`.
    revision, token, cache_folder, local_files_only : optional
        Of a model of the hub; see `ufbert.download`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.

    Examples
    --------
    >>> import ufbert
    >>> encoder = ufbert.MultiVectorEncoder("path/to/colbert")  # doctest: +SKIP
    >>> documents = encoder.encode_document(["Plants make sugar of light."])  # doctest: +SKIP
    >>> encoder.similarity(encoder.encode_query(["How do plants make food?"]), documents)  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        on_overflow: str = "truncate",
        dtype: str = "float32",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.on_overflow = checks.choice(on_overflow, "on_overflow", ON_OVERFLOW)
        root = open_model(
            folder, revision=revision, token=token, cache_folder=cache_folder, local_files_only=local_files_only
        )
        self._model = load_multi_vector_model(root, dtype)
        self._arguments = os.path.abspath(root.path), on_overflow, dtype

    def __reduce__(self) -> tuple[type[MultiVectorEncoder], tuple[str, str, str]]:
        """Pickle the name of the folder, to load it from there again."""
        return MultiVectorEncoder, self._arguments

    @property
    def dimension(self) -> int:
        """Width of a vector."""
        return self._model.dimension

    def encode_query(self, sentences: str | Iterable[str], batch_size: int = 32) -> Vectors | list[Vectors]:
        """Embed queries: as `encode_document`, with the prompt, the length and the expansion of queries."""
        return self._encode(sentences, True, batch_size)

    def encode_document(self, sentences: str | Iterable[str], batch_size: int = 32) -> Vectors | list[Vectors]:
        """Embed documents.

        Parameters
        ----------
        sentences : str or iterable of str
        batch_size : int
            Texts in one forward pass at most.

        Returns
        -------
        (S, dim) float32 array for a str, a list of those for an iterable
            A vector for each token but for those that the model skips, such as punctuation.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        return self._encode(sentences, False, batch_size)

    def stream(self, sentences: Iterable[str], is_query: bool = False, batch_size: int = 32) -> Iterator[Vectors]:
        """Embed any number of texts, holding `batch_size` of them at a time; memory does not grow with their number.

        Yields
        ------
        (S, dim) float32 array
            The vectors of each text, in order.
        """
        return self._vectors(sentences, is_query, batch_size, 0)

    def similarity(
        self, queries: Vectors | Sequence[ArrayLike], documents: Vectors | Sequence[ArrayLike]
    ) -> NDArray[np.float32]:
        """Score every query with every document; see `maxsim`."""
        return maxsim(queries, documents)

    def similarity_pairwise(
        self, queries: Vectors | Sequence[ArrayLike], documents: Vectors | Sequence[ArrayLike]
    ) -> NDArray[np.float32]:
        """Score each query with the document in its place, as `maxsim` does: (N,) float32.

        Raises
        ------
        InputError
            If the arguments do not fit `maxsim`, or their numbers differ.
        """
        rows, columns = _each(queries, "queries"), _each(documents, "documents")
        if len(rows) != len(columns):
            raise InputError(f"documents: expected {len(rows)}, one for each query, got {len(columns)}")
        return np.array([_score(*pair) for pair in zip(rows, columns, strict=True)], np.float32)

    def _encode(self, sentences: str | Iterable[str], is_query: bool, batch_size: int) -> Vectors | list[Vectors]:
        texts = [sentences] if isinstance(sentences, str) else sentences
        found = list(self._vectors(texts, is_query, batch_size, WINDOW))
        return found[0] if isinstance(sentences, str) else found

    def _vectors(self, sentences: Iterable[str], is_query: bool, batch_size: int, window: int) -> Iterator[Vectors]:
        """Check the arguments; return the vectors, read in windows of at least `window` texts."""
        batch_size, read = check_batch_size(batch_size), each_text(sentences, "sentences")
        texts = self._model.queries if is_query else self._model.documents
        windows = texts.windows(read, "sentences", max(window, batch_size), self.on_overflow)
        return (row for part in windows for row in self._window(part, is_query, batch_size))

    def _window(self, window: Window, is_query: bool, batch_size: int) -> list[Vectors]:
        model = self._model.queries.model
        marked = [self._model.sequence(encoding.ids, is_query) for encoding in window.encodings]
        ids, own = [each for each, _ in marked], [count for _, count in marked]
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        types = [window.encodings[index].type_ids for index in order]
        ids = [ids[index] for index in order]
        types = [given + [0] * (len(each) - len(given)) for given, each in zip(types, ids, strict=True)]
        whole = Batch.from_sequences(ids, types, model.config.first_position)
        model.check(whole, whole.max_length)
        if is_query and self._model.expansion is not None and not self._model.expansion.attend:
            places = np.arange(whole.num_tokens) - np.repeat(whole.cu_seqlens[:-1], whole.lengths)
            attended = places < np.repeat([own[index] for index in order], whole.lengths)
            whole = whole if attended.all() else replace(whole, attended=attended)
        found: list[Vectors] = [np.zeros((0, self.dimension), np.float32)] * len(ids)
        for start, batch in whole.parts(TOKEN_BUDGET, batch_size):
            vectors, ends = self._model.embed(model.encoder(batch)), batch.cu_seqlens.tolist()
            kept = np.ones(batch.num_tokens, bool) if is_query else self._model.kept(batch)
            for at in range(len(batch)):
                part = slice(ends[at], ends[at + 1])
                found[order[start + at]] = vectors[part][kept[part]]
        return found


def maxsim(queries: Vectors | Sequence[ArrayLike], documents: Vectors | Sequence[ArrayLike]) -> NDArray[np.float32]:
    """Score queries with documents by late interaction: for each query's vector its nearest in the document, summed.

    Parameters
    ----------
    queries, documents : (S, dim) array, or sequence of those

    Returns
    -------
    (number of queries, number of documents) float32 array
        0 for a query or a document without vectors.

    Raises
    ------
    InputError
        If the arguments are no such arrays, or the widths differ.
    """
    rows, columns = _each(queries, "queries"), _each(documents, "documents")
    scores = np.zeros((len(rows), len(columns)), np.float32)
    for row, query in zip(scores, rows, strict=True):
        row[:] = [_score(query, document) for document in columns]
    return scores


def _score(query: Vectors, document: Vectors) -> np.float32:
    if query.shape[1] != document.shape[1]:
        raise InputError(f"documents: expected vectors of width {query.shape[1]}, got {document.shape[1]}")
    found: np.float32 = (query @ document.T).max(axis=1).sum() if len(document) else np.float32(0)
    return found


def _each(vectors: Vectors | Sequence[ArrayLike], name: str) -> list[Vectors]:
    """Return a list of (S, dim) arrays, of one for an array."""
    given = [vectors] if isinstance(vectors, np.ndarray) and vectors.ndim == 2 else vectors
    return [checks.array(each, f"{name}[{index}]", 2) for index, each in enumerate(given)]
