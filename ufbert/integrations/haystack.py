"""Haystack: embedders of texts and documents, and a ranker.

>>> from ufbert.integrations.haystack import UfbertTextEmbedder
>>> pipeline.add_component("embedder", UfbertTextEmbedder(dtype="int8"))  # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..tasks import CrossEncoder
from .adapter import Adapter, missing, rank

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise missing("haystack-ai", error) from None

__all__ = ["UfbertDocumentEmbedder", "UfbertRanker", "UfbertTextEmbedder"]


class _Stored:
    """A dataclass that Haystack stores by its fields."""

    def to_dict(self) -> dict[str, Any]:
        """Return class and settings, for Haystack's files."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return default_to_dict(self, **settings)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _Stored:
        """Make the component that `to_dict` told of."""
        return default_from_dict(cls, data)  # type: ignore[no-any-return]


@component
class UfbertTextEmbedder(_Stored, Adapter):
    """Embeds a text that seeks others; the parameters are those of `Adapter`."""

    def warm_up(self) -> None:
        """Load the model."""
        self.encoder  # noqa: B018

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Embed a text: ``{"embedding": (dim,)}``."""
        return {"embedding": self.queries([text])[0].tolist()}


@component
@dataclass
class UfbertDocumentEmbedder(_Stored, Adapter):
    """Embeds documents; the parameters are those of `Adapter`, and two more.

    Parameters
    ----------
    meta_fields_to_embed : list of str
        Fields of a document's meta data that are put before its text.
    embedding_separator : str
        Put between these and the text.
    """

    meta_fields_to_embed: list[str] = field(default_factory=list)
    embedding_separator: str = "\n"

    def warm_up(self) -> None:
        """Load the model."""
        self.encoder  # noqa: B018

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Give the documents with their embeddings; the given ones stay as they are."""
        embeddings = self.documents([self._text(document) for document in documents]).tolist()
        return {"documents": [replace(d, embedding=e) for d, e in zip(documents, embeddings, strict=True)]}

    def _text(self, document: Document) -> str:
        found = [document.meta.get(name) for name in self.meta_fields_to_embed]
        return self.embedding_separator.join([*(str(v) for v in found if v is not None), document.content or ""])


@component
@dataclass
class UfbertRanker(_Stored):
    """Keeps the documents that fit a query best; their scores are the model's.

    Parameters
    ----------
    model : str
        A folder with a sequence classifier of one label.
    top_k : int, optional
        Documents to keep; None for all, in their new order.
    dtype : {"float32", "bfloat16", "int8", "auto"}
    max_length : int, optional
        Tokens of query and document; by default what the folder says.
    """

    model: str
    top_k: int | None = 10
    dtype: str = "float32"
    max_length: int | None = None

    def __post_init__(self) -> None:
        self._reranker: CrossEncoder | None = None

    def warm_up(self) -> None:
        """Load the model."""
        if self._reranker is None:
            self._reranker = CrossEncoder(self.model, max_length=self.max_length, dtype=self.dtype)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Rank documents for a query; the given ones stay as they are."""
        self.warm_up()
        assert self._reranker is not None
        texts = [document.content or "" for document in documents]
        ranked = rank(self._reranker, query, texts, self.top_k if top_k is None else top_k)
        return {"documents": [replace(documents[number], score=score) for number, score in ranked]}
