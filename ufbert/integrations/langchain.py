"""LangChain: embeddings, a cross-encoder, and a reranker of documents.

>>> from ufbert.integrations.langchain import UfbertEmbeddings
>>> store = InMemoryVectorStore.from_texts(texts, UfbertEmbeddings(dtype="int8"))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence

from ..tasks import CrossEncoder
from .adapter import Adapter, missing, rank

try:
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from pydantic import PrivateAttr
except ImportError as error:
    raise missing("langchain-core", error) from None

__all__ = ["UfbertCrossEncoder", "UfbertEmbeddings", "UfbertReranker"]


class UfbertEmbeddings(Adapter, Embeddings):
    """Embeddings for vector stores and retrievers; the parameters are those of `Adapter`."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts that are sought."""
        return self.documents(texts).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        """Embed a text that seeks others."""
        return self.queries([text])[0].tolist()  # type: ignore[no-any-return]


class UfbertCrossEncoder(BaseCrossEncoder):
    """Scores of text pairs, for LangChain's ``CrossEncoderReranker``.

    Parameters
    ----------
    model : str
        A folder with a sequence classifier of one label.
    dtype : {"float32", "bfloat16", "int8", "auto"}
    max_length : int, optional
        Tokens of a pair; by default what the folder says.
    """

    def __init__(self, model: str, dtype: str = "float32", max_length: int | None = None) -> None:
        self._reranker = CrossEncoder(model, max_length=max_length, dtype=dtype)

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Score pairs, such as a query and a document."""
        return self._reranker.predict(text_pairs).tolist()  # type: ignore[no-any-return]


class UfbertReranker(BaseDocumentCompressor):
    """Keeps the documents that fit a query best, with ``relevance_score`` in their metadata.

    Attributes
    ----------
    model : str
        A folder with a sequence classifier of one label.
    top_n : int, optional
        Documents to keep; None for all, in their new order.
    dtype : {"float32", "bfloat16", "int8", "auto"}
    max_length : int, optional
        Tokens of query and document; by default what the folder says.
    """

    model: str
    top_n: int | None = None
    dtype: str = "float32"
    max_length: int | None = None
    _reranker: CrossEncoder = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Load the model."""
        self._reranker = CrossEncoder(self.model, max_length=self.max_length, dtype=self.dtype)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: object = None
    ) -> Sequence[Document]:
        """Rank documents for a query; the given ones stay as they are."""
        ranked = rank(self._reranker, query, [document.page_content for document in documents], self.top_n)
        found = [(documents[number], score) for number, score in ranked]
        return [d.model_copy(update={"metadata": d.metadata | {"relevance_score": score}}) for d, score in found]
