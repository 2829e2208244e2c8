"""Sparse embeddings: weights of the vocabulary for each text (SPLADE)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..checkpoint.sparse import load_sparse_model
from ..errors import InputError
from ..text_model import ON_OVERFLOW, WINDOW, check_batch_size, each_text
from .encoder_settings import Limited, prompt_text
from .load import open_model
from .sparse_embeddings import SparseEmbeddings, SparseVector

__all__ = ["SparseEncoder"]


class SparseEncoder(Limited):
    """Turns texts into sparse embeddings, as sentence-transformers' ``SparseEncoder`` does with the same folder.

    A value of an embedding says how much a token of the vocabulary has to do with the text. Most are zero.

    Parameters
    ----------
    folder : str or path
        A folder with a masked LM that was trained for it (SPLADE), plain or of sentence-transformers; or the name of a
        model of the Hugging Face hub.
    max_seq_length : int, optional
        Tokens a text may have, special tokens included; by default what the folder says.
    max_active_dims : int, optional
        Keep only so many of the largest values; by default what the folder says, usually all.
    on_overflow : {"truncate", "warn", "error"}
        What to do with longer texts.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the encoder's matrix multiplications; see `ufbert.load`.
    revision, token, cache_folder, local_files_only : optional
        Of a model of the hub; see `ufbert.download`.

    Attributes
    ----------
    prompts : dict of str to str
        By name.
    similarity_fn_name : {"dot", "cosine"}

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    InputError
        If another argument does not fit.

    Examples
    --------
    >>> import ufbert
    >>> encoder = ufbert.SparseEncoder("path/to/splade")  # doctest: +SKIP
    >>> documents = encoder.encode_document(["Plants make sugar of light."])  # doctest: +SKIP
    >>> encoder.similarity(encoder.encode_query(["How do plants make food?"]), documents)  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        max_seq_length: int | None = None,
        max_active_dims: int | None = None,
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
        self._model = load_sparse_model(root, dtype)
        self._texts = self._model.texts
        settings = self._model.settings
        self.prompts = {"query": "", "document": ""} | settings.prompts
        self.default_prompt_name = settings.default_prompt_name
        self.similarity_fn_name = settings.similarity_fn_name
        self.max_active_dims = self._most(self._model.max_active_dims if max_active_dims is None else max_active_dims)
        if max_seq_length is not None:
            self.max_seq_length = max_seq_length

    @property
    def dimension(self) -> int:
        """Width of an embedding: the size of the vocabulary."""
        return self._texts.model.config.vocab_size

    def get_embedding_dimension(self) -> int:
        """Width of an embedding, by its name in sentence-transformers."""
        return self.dimension

    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int = 32,
        max_active_dims: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> SparseEmbeddings:
        """Embed texts.

        Parameters
        ----------
        sentences : str or iterable of str
        batch_size : int
            Texts in one forward pass at most.
        max_active_dims : int, optional
            Keep only so many of the largest values; by default as the encoder's own says.
        prompt, prompt_name : str, optional
            Put before each text: literally, or one of `prompts` by name.

        Returns
        -------
        SparseEmbeddings
            One row for each text, of a str one row. ``to_scipy()`` makes a ``csr_array`` of it.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        texts = [sentences] if isinstance(sentences, str) else sentences
        rows = list(self._rows(texts, batch_size, max_active_dims, prompt, prompt_name, WINDOW))
        return SparseEmbeddings.of(rows, self.dimension)

    def encode_query(self, sentences: str | Iterable[str], batch_size: int = 32) -> SparseEmbeddings:
        """Embed queries: `encode` with the prompt "query"."""
        return self.encode(sentences, batch_size, prompt_name="query")

    def encode_document(self, sentences: str | Iterable[str], batch_size: int = 32) -> SparseEmbeddings:
        """Embed documents: `encode` with the prompt "document", "passage" or "corpus", the first that is not empty."""
        names = [name for name in ("document", "passage", "corpus") if self.prompts.get(name)]
        return self.encode(sentences, batch_size, prompt_name=names[0] if names else "document")

    def stream(
        self,
        sentences: Iterable[str],
        batch_size: int = 32,
        max_active_dims: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
    ) -> Iterator[SparseVector]:
        """Embed any number of texts, holding `batch_size` of them at a time.

        Parameters are those of `encode`; memory does not grow with the number of texts.

        Yields
        ------
        SparseVector
            Indices and values of each text, in order.
        """
        return self._rows(sentences, batch_size, max_active_dims, prompt, prompt_name, 0)

    def decode(
        self, embeddings: SparseEmbeddings | SparseVector, top_k: int | None = None
    ) -> list[tuple[str, float]] | list[list[tuple[str, float]]]:
        """Name the tokens of embeddings.

        Parameters
        ----------
        embeddings : SparseEmbeddings or SparseVector
        top_k : int, optional
            How many tokens to give; None for all.

        Returns
        -------
        list of (str, float), of several embeddings a list of those
            Tokens with their weights, the heaviest first.
        """
        count = None if top_k is None else checks.integer(top_k, "top_k", 1)
        if isinstance(embeddings, SparseEmbeddings):
            return [self._named(row, count) for row in embeddings]
        if not isinstance(embeddings, SparseVector):
            raise InputError(f"embeddings: expected what encode or stream gave, got {type(embeddings).__name__}")
        return self._named(embeddings, count)

    def similarity(self, embeddings1: SparseEmbeddings, embeddings2: SparseEmbeddings) -> NDArray[np.float32]:
        """Similarity of every embedding to every other one, by `similarity_fn_name`: (N, dim), (M, dim) -> (N, M).

        Raises
        ------
        InputError
            If the arguments are not such embeddings.
        """
        a, b = self._lengths(embeddings1), self._lengths(embeddings2)
        scores = embeddings1.dot(embeddings2)
        scores /= a[:, None] * b
        return scores

    def similarity_pairwise(self, embeddings1: SparseEmbeddings, embeddings2: SparseEmbeddings) -> NDArray[np.float32]:
        """Similarity of each embedding to the one in its place, by `similarity_fn_name`: two (N, dim) -> (N,).

        Raises
        ------
        InputError
            If the arguments are not such embeddings, or not of one shape.
        """
        a, b = self._lengths(embeddings1), self._lengths(embeddings2)
        scores = embeddings1.dot_pairwise(embeddings2)
        scores /= a * b
        return scores

    def _lengths(self, embeddings: SparseEmbeddings) -> NDArray[np.float32]:
        """What scores are divided by, (N,)."""
        if not isinstance(embeddings, SparseEmbeddings):
            raise InputError(f"embeddings: expected what encode gave, got {type(embeddings).__name__}")
        if checks.choice(self.similarity_fn_name, "similarity_fn_name", ("dot", "cosine")) == "dot":
            return np.ones(len(embeddings), np.float32)
        return np.maximum(embeddings.lengths(), np.float32(1e-12))

    def _rows(
        self, sentences: Iterable[str], batch_size: int, max_active_dims: int | None, prompt: str | None,
        prompt_name: str | None, window: int,
    ) -> Iterator[SparseVector]:  # fmt: skip
        """Check the arguments; return the embeddings, read in windows of at least `window` texts."""
        batch_size = check_batch_size(batch_size)
        most = self.max_active_dims if max_active_dims is None else self._most(max_active_dims)
        texts = replace(self._texts, prompt=prompt_text(self.prompts, self.default_prompt_name, prompt, prompt_name))
        read = each_text(sentences, "sentences")

        def rows() -> Iterator[SparseVector]:
            for part in texts.windows(read, "sentences", max(window, batch_size), self.on_overflow):
                found: dict[int, SparseVector] = {}
                for run in texts.run(part.encodings, batch_size):
                    for index, row in zip(run.indices, self._model.embed(run.hidden, run.batch), strict=True):
                        found[index] = SparseVector.of(row, most)
                yield from (found[index] for index in range(len(part.texts)))

        return rows()

    def _named(self, row: SparseVector, count: int | None) -> list[tuple[str, float]]:
        order = np.argsort(-row.values, kind="stable")[:count]
        name = self._texts.tokenizer.backend.id_to_token
        return [(name(int(row.indices[at])) or "", float(row.values[at])) for at in order]

    @staticmethod
    def _most(value: object) -> int | None:
        return None if value is None else checks.integer(value, "max_active_dims", 1)
