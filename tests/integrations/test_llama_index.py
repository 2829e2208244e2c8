"""An index that is built, stored, loaded and queried; nodes ranked with sentence-transformers' scores."""

import asyncio

import numpy as np
import pytest
from llama_index.core import Document, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, TextNode
from sentences import DOCUMENTS, MODEL, QUERY, QUESTIONS, RANKED, RERANKER, SENTENCES

import ufbert
from ufbert.integrations.llama_index import UfbertEmbedding, UfbertRerank


@pytest.fixture(scope="module")
def embedding():
    return UfbertEmbedding(model_name=MODEL)


@pytest.fixture(scope="module")
def index(embedding, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    documents = [Document(text=text) for text in SENTENCES]
    VectorStoreIndex.from_documents(documents, embed_model=embedding).storage_context.persist(folder)
    return load_index_from_storage(StorageContext.from_defaults(persist_dir=str(folder)), embed_model=embedding)


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_a_stored_index_finds_the_answer(index, question, answer):
    assert index.as_retriever(similarity_top_k=1).retrieve(question)[0].text == answer


def test_a_retriever_with_a_reranker(index):
    nodes = index.as_retriever(similarity_top_k=5).retrieve("How do plants make food?")
    ranked = UfbertRerank(model=RERANKER, top_n=3).postprocess_nodes(nodes, query_str="How do plants make food?")
    wanted = ufbert.CrossEncoder(RERANKER).rank("How do plants make food?", [node.text for node in nodes], 3)
    assert [node.text for node in ranked] == [nodes[row["corpus_id"]].text for row in wanted]


def test_embeddings_are_those_of_the_encoder(embedding):
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    np.testing.assert_array_equal(np.float32(embedding.get_text_embedding_batch(SENTENCES)), wanted)
    np.testing.assert_array_equal(np.float32(embedding.get_query_embedding(SENTENCES[0])), wanted[0])

    async def both():
        return await embedding.aget_query_embedding(SENTENCES[0]), await embedding.aget_text_embedding_batch(SENTENCES)

    one, many = asyncio.run(both())
    np.testing.assert_array_equal(np.float32([one, *many]), wanted[[0, *range(len(wanted))]])


def test_an_ingestion_pipeline_embeds_nodes(embedding):
    nodes = IngestionPipeline(transformations=[embedding]).run(nodes=[TextNode(text=text) for text in SENTENCES[:3]])
    np.testing.assert_array_equal(
        np.float32([node.embedding for node in nodes]), ufbert.SentenceEncoder(MODEL).encode(SENTENCES[:3])
    )


def test_settings_come_back():
    stored = UfbertEmbedding(model_name=MODEL, dtype="int8", truncate_dim=64).to_dict()
    again = UfbertEmbedding.from_dict(stored)
    assert (again.model_name, again.dtype) == (MODEL, "int8")
    assert len(again.get_text_embedding("a text")) == 64


def test_scores_are_those_of_sentence_transformers():
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in DOCUMENTS]
    ranked = UfbertRerank(model=RERANKER, top_n=3).postprocess_nodes(nodes, query_str=QUERY)
    assert [node.text for node in ranked] == [DOCUMENTS[row["corpus_id"]] for row in RANKED]
    np.testing.assert_allclose([n.score for n in ranked], [row["score"] for row in RANKED], atol=1e-5)
    assert {node.score for node in nodes} == {0.5}


def test_a_query_is_needed():
    with pytest.raises(ValueError, match="query"):
        UfbertRerank(model=RERANKER).postprocess_nodes([])


def test_a_model_that_is_not_there_is_refused_at_once():
    with pytest.raises(ufbert.CheckpointError, match="no-such-model"):
        UfbertEmbedding(model_name="no-such-model")
