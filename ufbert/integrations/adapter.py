"""What all adapters share: an encoder with its settings, and the sentence where a package is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, shown
from ..tasks import CrossEncoder, SentenceEncoder

__all__ = ["Adapter", "TextAdapter", "missing", "rank"]


def missing(package: str, error: ImportError) -> ImportError:
    """Make the error for an adapter whose package is not installed."""
    return ImportError(
        f"this adapter of ufbert needs the package {package}, which could not be imported ({error}); "
        f"pip install {package}",
        name=error.name,
    )


@lru_cache(maxsize=4)
def _encoder(model: str | None, dtype: str, max_seq_length: int | None) -> SentenceEncoder:
    return SentenceEncoder(model, max_seq_length=max_seq_length, dtype=dtype)


@dataclass
class Adapter:
    """An encoder by its settings, which every framework can store.

    It is loaded when it is first needed. Adapters of the same settings share it: frameworks make new ones of stored
    settings for each call.

    Parameters
    ----------
    model : str or SentenceEncoder, optional
        A model folder, the name of a bundled model, or ``organisation/name`` of the hub; None for the bundled default.
        An encoder is taken as it is; a framework that stores settings needs a name.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications.
    max_seq_length : int, optional
        Tokens of a text; longer ones are cut. None for what the folder says.
    normalize_embeddings : bool
        Scale to length 1, also where the model does not.
    truncate_dim : int, optional
        Keep only the first dimensions.
    """

    model: str | SentenceEncoder | None = None
    dtype: str = "float32"
    max_seq_length: int | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None

    @property
    def encoder(self) -> SentenceEncoder:
        """The encoder.

        Raises
        ------
        CheckpointError, InputError
            As `ufbert.SentenceEncoder`.
        """
        if isinstance(self.model, SentenceEncoder):
            return self.model
        return _encoder(self.model, self.dtype, self.max_seq_length)

    def settings(self) -> dict[str, Any]:
        """Return the settings by name, in values that JSON has.

        Raises
        ------
        InputError
            If the model is an encoder and not a name.
        """
        if isinstance(self.model, SentenceEncoder):
            raise InputError("model: expected a folder or a name, which can be stored, got an encoder; name its folder")
        return {field.name: getattr(self, field.name) for field in fields(Adapter)}

    def queries(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Embed texts that seek others, with the model's prompt for queries: (N, dim)."""
        return self._call(self.encoder.encode_query, texts)

    def documents(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Embed texts that are sought, with the model's prompt for documents: (N, dim)."""
        return self._call(self.encoder.encode_document, texts)

    def texts(
        self, texts: Iterable[str], prompt_name: str | None = None, show_progress_bar: bool = False
    ) -> NDArray[np.float32]:
        """Embed texts with one of the model's prompts; None for its default, usually none: (N, dim)."""
        return self._call(self.encoder.encode, texts, prompt_name=prompt_name, show_progress_bar=show_progress_bar)

    def _call(
        self, encode: Callable[..., NDArray[np.float32]], texts: Iterable[str], **options: object
    ) -> NDArray[np.float32]:
        if isinstance(texts, str):
            raise InputError(f"texts: expected several texts, got one str: {shown(texts)}")
        return encode(texts, normalize_embeddings=self.normalize_embeddings, truncate_dim=self.truncate_dim, **options)


class TextAdapter(Adapter):
    """An adapter for frameworks whose texts are all of one kind."""

    def embed(self, documents: Iterable[str], verbose: bool = False) -> NDArray[np.float32]:
        """Embed texts: (N, dim)."""
        return self.texts(documents, show_progress_bar=verbose)


def rank(reranker: CrossEncoder, query: str, texts: Iterable[str], top: int | None) -> list[tuple[int, float]]:
    """Rank texts for a query: numbers of the best `top` texts, and their scores."""
    return [(found["corpus_id"], found["score"]) for found in reranker.rank(query, texts, top)]
