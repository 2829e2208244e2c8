"""LlamaIndex: an embedding model, and a postprocessor that ranks nodes.

>>> from ufbert.integrations.llama_index import UfbertEmbedding
>>> index = VectorStoreIndex.from_documents(documents, embed_model=UfbertEmbedding())  # doctest: +SKIP
"""

from __future__ import annotations

import asyncio

from ..tasks import CrossEncoder
from .adapter import Adapter, missing, rank

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
except ImportError as error:
    raise missing("llama-index-core", error) from None

__all__ = ["UfbertEmbedding", "UfbertRerank"]


class UfbertEmbedding(BaseEmbedding):
    """Embeddings for indexes and retrievers.

    Attributes
    ----------
    model_name : str
        A model folder, the name of a bundled model or of one of the hub; "" for the bundled default.
    dtype, max_seq_length, normalize_embeddings, truncate_dim
        As in `Adapter`.
    """

    model_name: str = ""
    dtype: str = "float32"
    max_seq_length: int | None = None
    normalize_embeddings: bool = False
    truncate_dim: int | None = None
    _adapter: Adapter = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Load the model."""
        super().model_post_init(context)
        self._adapter = Adapter(
            self.model_name or None, self.dtype, self.max_seq_length, self.normalize_embeddings, self.truncate_dim
        )
        self._adapter.encoder  # noqa: B018  # a model that is not there is refused here

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in stored settings."""
        return "UfbertEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._adapter.queries([query])[0].tolist()  # type: ignore[no-any-return]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._adapter.documents(texts).tolist()  # type: ignore[no-any-return]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class UfbertRerank(BaseNodePostprocessor):
    """Keeps the nodes that fit a query best; their scores are the model's.

    Attributes
    ----------
    model : str
        A folder with a sequence classifier of one label.
    top_n : int, optional
        Nodes to keep; None for all, in their new order.
    dtype : {"float32", "bfloat16", "int8", "auto"}
    max_length : int, optional
        Tokens of query and node; by default what the folder says.
    """

    model: str
    top_n: int | None = 2
    dtype: str = "float32"
    max_length: int | None = None
    _reranker: CrossEncoder = PrivateAttr()

    def model_post_init(self, context: object, /) -> None:
        """Load the model."""
        super().model_post_init(context)
        self._reranker = CrossEncoder(self.model, max_length=self.max_length, dtype=self.dtype)

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in stored settings."""
        return "UfbertRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("query: expected one to rank nodes for, got None; give query_str or query_bundle")
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = rank(self._reranker, query_bundle.query_str, texts, self.top_n)
        return [NodeWithScore(node=nodes[number].node, score=score) for number, score in ranked]
