"""A collection on disk, opened again with the function that its settings tell of."""

import chromadb
import numpy as np
import pytest
from sentences import MODEL, QUESTIONS, SENTENCES

import ufbert
from ufbert.integrations.chroma import UfbertEmbeddingFunction


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chroma")
    client = chromadb.PersistentClient(str(folder))
    notes = client.create_collection("notes", embedding_function=UfbertEmbeddingFunction(MODEL, dtype="bfloat16"))
    notes.add(ids=[str(number) for number in range(len(SENTENCES))], documents=SENTENCES)
    return folder


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_a_collection_finds_the_answer_after_it_was_closed(folder, question, answer):
    chromadb.api.shared_system_client.SharedSystemClient.clear_system_cache()
    notes = chromadb.PersistentClient(str(folder)).get_collection("notes")
    function = notes.configuration["embedding_function"]
    assert function == UfbertEmbeddingFunction(MODEL, dtype="bfloat16")
    assert notes.query(query_texts=[question], n_results=1)["documents"] == [[answer]]
    assert notes.configuration["hnsw"]["space"] == "cosine"


def test_embeddings_are_those_of_the_encoder():
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    function = UfbertEmbeddingFunction(MODEL)
    np.testing.assert_array_equal(function(SENTENCES), wanted)
    np.testing.assert_array_equal(function.embed_query(SENTENCES), wanted)


def test_settings_come_back():
    function = UfbertEmbeddingFunction(MODEL, dtype="int8", truncate_dim=64)
    again = UfbertEmbeddingFunction.build_from_config(function.get_config())
    assert again == function and not again.is_legacy()
    with pytest.raises(ufbert.InputError, match="colour"):
        UfbertEmbeddingFunction.build_from_config({"colour": "red"})
    with pytest.raises(ufbert.InputError, match="encoder"):
        UfbertEmbeddingFunction(ufbert.SentenceEncoder(MODEL)).get_config()


def test_another_model_is_refused_for_a_collection_with_embeddings(folder):
    notes = chromadb.PersistentClient(str(folder)).get_collection("notes")
    other = UfbertEmbeddingFunction("all-MiniLM-L6-v2-fff-1x11")
    with pytest.raises(ufbert.InputError, match="make a new collection"):
        notes.modify(configuration={"embedding_function": other})
