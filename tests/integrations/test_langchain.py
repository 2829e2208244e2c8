"""LangChain's own tests, a vector store, and rerankers that give sentence-transformers' scores."""

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from sentences import DOCUMENTS, EXPECTED, MODEL, QUERY, QUESTIONS, RANKED, RERANKER, SENTENCES

import ufbert
from ufbert.integrations.langchain import UfbertCrossEncoder, UfbertEmbeddings, UfbertReranker


class Standard:
    @property
    def embeddings_class(self):
        return UfbertEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": MODEL, "dtype": "int8"}


class TestUnit(Standard, EmbeddingsUnitTests):
    pass


class TestIntegration(Standard, EmbeddingsIntegrationTests):
    pass


@pytest.fixture(scope="module")
def store():
    return InMemoryVectorStore.from_texts(SENTENCES, UfbertEmbeddings(MODEL))


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_a_store_finds_the_answer(store, question, answer):
    assert store.similarity_search(question, k=1)[0].page_content == answer


def test_embeddings_are_those_of_the_encoder(store):
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    np.testing.assert_array_equal(np.float32(UfbertEmbeddings(MODEL).embed_documents(SENTENCES)), wanted)
    np.testing.assert_array_equal(np.float32(UfbertEmbeddings(MODEL).embed_query(SENTENCES[0])), wanted[0])


def test_a_cross_encoder_reranks_what_a_retriever_finds(store):
    reranker = CrossEncoderReranker(model=UfbertCrossEncoder(RERANKER), top_n=2)
    retriever = ContextualCompressionRetriever(
        base_compressor=reranker, base_retriever=store.as_retriever(search_kwargs={"k": 5})
    )
    found = [document.page_content for document in retriever.invoke("How do plants make food?")]
    pairs = [("How do plants make food?", text) for text in found]
    scores = ufbert.CrossEncoder(RERANKER).predict(pairs)
    assert len(found) == 2 and scores[0] >= scores[1]


def test_scores_are_those_of_sentence_transformers():
    scores = UfbertCrossEncoder(RERANKER).score([tuple(pair) for pair in EXPECTED["pairs"]])
    np.testing.assert_allclose(scores, EXPECTED["predict"], atol=1e-5)


def test_the_reranker_gives_scores_and_leaves_its_documents_alone():
    documents = [Document(page_content=text, metadata={"number": number}) for number, text in enumerate(DOCUMENTS)]
    ranked = UfbertReranker(model=RERANKER, top_n=3).compress_documents(documents, QUERY)
    assert [document.metadata["number"] for document in ranked] == [row["corpus_id"] for row in RANKED]
    scores = [document.metadata["relevance_score"] for document in ranked]
    np.testing.assert_allclose(scores, [row["score"] for row in RANKED], atol=1e-5)
    assert all("relevance_score" not in document.metadata for document in documents)
