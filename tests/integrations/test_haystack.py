"""Pipelines that index, search and rank, stored as YAML and loaded again."""

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore
from sentences import DOCUMENTS, MODEL, QUERY, QUESTIONS, RANKED, RERANKER, SENTENCES

import ufbert
from ufbert.integrations.haystack import UfbertDocumentEmbedder, UfbertRanker, UfbertTextEmbedder


@pytest.fixture(scope="module")
def store():
    store = InMemoryDocumentStore()
    indexing = Pipeline()
    indexing.add_component("embedder", UfbertDocumentEmbedder(MODEL))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    stored = Pipeline.loads(indexing.dumps(), allowed_modules=["ufbert.*"])
    stored.get_component("writer").document_store = store
    stored.run({"embedder": {"documents": [Document(content=text) for text in SENTENCES]}})
    return store


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_a_stored_pipeline_finds_the_answer(store, question, answer):
    pipeline = Pipeline()
    pipeline.add_component("embedder", UfbertTextEmbedder(MODEL))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=5))
    pipeline.add_component("ranker", UfbertRanker(RERANKER, top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    stored = Pipeline.loads(pipeline.dumps(), allowed_modules=["ufbert.*"])
    stored.get_component("retriever").document_store = store
    wanted = {"embedder": {"text": question}, "ranker": {"query": question}}
    found = stored.run(wanted, include_outputs_from={"retriever"})
    retrieved = [document.content for document in found["retriever"]["documents"]]
    assert retrieved[0] == answer
    ranked = ufbert.CrossEncoder(RERANKER).rank(question, retrieved, 2)
    assert [d.content for d in found["ranker"]["documents"]] == [retrieved[row["corpus_id"]] for row in ranked]


def test_embeddings_are_those_of_the_encoder():
    wanted = ufbert.SentenceEncoder(MODEL).encode([*SENTENCES, "Title\na text"])
    documents = [*map(Document.from_dict, ({"content": text} for text in SENTENCES))]
    documents.append(Document(content="a text", meta={"title": "Title", "other": "x"}))
    embedder = UfbertDocumentEmbedder(MODEL, meta_fields_to_embed=["title", "missing"])
    found = embedder.run(documents)["documents"]
    np.testing.assert_array_equal(np.float32([document.embedding for document in found]), wanted)
    np.testing.assert_array_equal(np.float32(UfbertTextEmbedder(MODEL).run(SENTENCES[0])["embedding"]), wanted[0])
    assert all(document.embedding is None for document in documents)


def test_settings_come_back():
    embedder = UfbertDocumentEmbedder(MODEL, dtype="int8", truncate_dim=64, meta_fields_to_embed=["title"])
    again = UfbertDocumentEmbedder.from_dict(embedder.to_dict())
    assert again.to_dict() == embedder.to_dict() and again.meta_fields_to_embed == ["title"]
    assert len(again.run([Document(content="a text")])["documents"][0].embedding) == 64
    ranker = UfbertRanker(RERANKER, top_k=3)
    assert UfbertRanker.from_dict(ranker.to_dict()).to_dict() == ranker.to_dict()


def test_scores_are_those_of_sentence_transformers():
    documents = [Document(content=text) for text in DOCUMENTS]
    ranked = UfbertRanker(RERANKER, top_k=3).run(QUERY, documents)["documents"]
    assert [d.content for d in ranked] == [DOCUMENTS[row["corpus_id"]] for row in RANKED]
    np.testing.assert_allclose([d.score for d in ranked], [row["score"] for row in RANKED], atol=1e-5)
