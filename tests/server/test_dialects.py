"""Cohere's, Jina's and Ollama's routes, and the one of the hub's inference client."""

import json

import httpx
import numpy as np
import pytest
from conftest import GOLDEN

import ufbert
from ufbert.routes.record import record_routes

pytest_plugins = "serving"
PIPELINES = GOLDEN / "pipelines"


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank_of_documents(http, path):
    body = {"query": "the cat", "documents": ["a cat", {"text": "the dog"}, "b"], "model": "relevance"}
    found = http.post(path, json=body | {"top_n": 2, "return_documents": True}).json()
    scores = [row["relevance_score"] for row in found["results"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    texts = ["a cat", "the dog", "b"]
    assert all(row["document"] == {"text": texts[row["index"]]} for row in found["results"])
    as_texts = http.post("/rerank", json={"query": "the cat", "texts": texts}).json()
    assert [row["index"] for row in as_texts[:2]] == [row["index"] for row in found["results"]]
    assert "document" not in http.post(path, json=body).json()["results"][0]


def test_a_folder_of_sentence_transformers_cross_encoder_is_a_reranker(running):
    folder = GOLDEN / "cross-encoders" / "one-label"  # its modules.json names a transformer alone
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    query, texts = expected["pairs"][0][0], [text for _, text in expected["pairs"][:5] if text]
    wanted = {text: score for (_, text), score in zip(expected["pairs"][:5], expected["predict"][:5], strict=True)}
    with running.func({"relevance": folder}) as server:
        found = httpx.post(f"{server.url}/rerank", json={"query": query, "texts": texts}).json()
    scores = [row["score"] for row in found]
    np.testing.assert_allclose(scores, [wanted[texts[row["index"]]] for row in found], atol=1e-5)
    assert scores == sorted(scores, reverse=True) and len(scores) == 4


def test_documents_are_cut(http):
    whole = {"query": "the cat", "documents": ["a b c the cat"], "return_documents": True}
    cut = http.post("/v2/rerank", json=whole | {"max_tokens_per_doc": 3}).json()
    assert cut["results"][0]["document"] == {"text": "a b c"}


def test_cohere_embed(http, folders):
    encoder = ufbert.SentenceEncoder(folders["tiny"])
    body = {"texts": ["cat", "a b"], "model": "tiny", "input_type": "search_query", "embedding_types": ["float"]}
    found = http.post("/v2/embed", json=body).json()
    expected = encoder.encode(["cat", "a b"], prompt_name="query", normalize_embeddings=True)
    np.testing.assert_array_equal(np.array(found["embeddings"]["float"], np.float32), expected)
    assert found["texts"] == ["cat", "a b"]
    assert http.post("/v2/embed", json=body | {"embedding_types": ["int8"]}).status_code == 422
    assert http.post("/v2/embed", json=body | {"truncate": "NONE", "texts": ["a " * 50]}).status_code == 422


def test_cohere_embed_of_its_first_version_and_of_contents(http):
    body = {"texts": ["cat", "a b"], "model": "tiny"}
    rows = http.post("/v2/embed", json=body).json()["embeddings"]["float"]
    plain = http.post("/v1/embed", json=body).json()
    assert plain["embeddings"] == rows and plain["response_type"] == "embeddings_floats"
    typed = http.post("/v1/embed", json=body | {"embedding_types": ["float"]}).json()
    assert typed["embeddings"] == {"float": rows} and typed["response_type"] == "embeddings_by_type"
    contents = [{"content": [{"type": "text", "text": text}]} for text in body["texts"]]
    assert http.post("/v2/embed", json={"inputs": contents}).json()["embeddings"]["float"] == rows
    image = [{"content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    refused = http.post("/v2/embed", json={"inputs": image})
    assert refused.status_code == 422 and "inputs[0].content[0].type" in refused.json()["error"]
    assert http.post("/v2/embed", json=body | {"inputs": contents}).status_code == 422


def test_voyage(http, folders):
    encoder = ufbert.SentenceEncoder(folders["tiny"])
    asked = {"input": ["cat", "a b"], "model": "tiny", "input_type": "query", "truncation": True}
    found = http.post("/v1/embeddings", json=asked).json()["data"]
    expected = encoder.encode(asked["input"], prompt_name="query", normalize_embeddings=True)
    np.testing.assert_array_equal(np.array([row["embedding"] for row in found], np.float32), expected)
    refused = http.post("/v1/embeddings", json=asked | {"input_type": "other"})
    assert refused.status_code == 400 and "input_type" in refused.json()["error"]["message"]
    body = {"query": "the cat", "documents": ["a cat", "the dog"], "model": "relevance", "top_k": 1}
    ranked = http.post("/v1/rerank", json=body | {"truncation": True, "return_documents": True}).json()
    (best,) = ranked["data"]
    assert best["document"] == body["documents"][best["index"]] and ranked["usage"]["total_tokens"] > 0
    assert http.post("/v1/rerank", json=body | {"top_n": 0}).status_code == 422
    long = body | {"documents": ["a " * 100], "truncation": False}
    assert http.post("/v1/rerank", json=long).status_code == 422


def test_labels_that_the_model_does_not_have_are_refused(http):
    """The hub's client would put the caller's labels beside the scores of the model's own."""
    body = {"inputs": "a", "parameters": {"candidate_labels": ["x", "y"]}}
    refused = http.post("/models/classes", json=body)
    assert refused.status_code == 422 and "candidate_labels" in refused.json()["error"]


def test_ollama_lists_models_and_embeds_a_prompt(http):
    listed = http.get("/api/tags").json()["models"]
    assert [model["name"] for model in listed][:2] == ["tiny", "trees"] and len(listed[0]["digest"]) == 64
    assert http.get("/api/version").json()["version"] == ufbert.__version__
    rows = http.post("/api/embed", json={"model": "tiny", "input": "the cat"}).json()["embeddings"]
    assert http.post("/api/embeddings", json={"model": "tiny", "prompt": "the cat"}).json() == {"embedding": rows[0]}


def test_ollama(http, folders):
    found = http.post("/api/embed", json={"model": "tiny:latest", "input": "the cat", "keep_alive": "5m"}).json()
    expected = ufbert.SentenceEncoder(folders["tiny"]).encode(["the cat"], normalize_embeddings=True)
    np.testing.assert_array_equal(np.array(found["embeddings"], np.float32), expected)
    assert found["model"] == "tiny:latest" and found["prompt_eval_count"] == 4


def test_the_root_chooses_by_the_shape_of_the_inputs(http):
    assert len(http.post("/", json={"inputs": ["the cat", "a"]}).json()) == 2
    sentences = {"source_sentence": "cat", "sentences": ["a", "b"]}
    assert len(http.post("/", json={"inputs": sentences, "parameters": {}}).json()) == 2
    question = {"question": "Where?", "context": "John lives in New York."}
    assert set(http.post("/", json={"inputs": question}).json()) == {"score", "start", "end", "answer"}
    nested = http.post("/models/classes", json={"inputs": "The fish was cold.", "parameters": {"top_k": 2}}).json()
    assert len(nested) == 1 and len(nested[0]) == 2
    assert http.post("/models/nothing", json={"inputs": "a"}).status_code == 404


CALLS = {
    "fill": (ufbert.FillMask, "The [MASK] was cold.", {"top_k": 3}),
    "entities": (ufbert.TokenClassifier, "John lives in New York.", {"aggregation_strategy": "max"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_tasks_answer_as_alone(http, folders, name):
    make, text, parameters = CALLS[name]
    found = http.post("/", json={"inputs": text, "parameters": parameters, "model": name}).json()
    assert found == json.loads(json.dumps(make(folders[name])(text, **parameters)))


def test_answers_as_alone(http, folders):
    context = "Nothing here. " * 60 + "John Smith lives in Brooklyn."
    options = {"top_k": 3, "max_seq_len": 60, "doc_stride": 8}
    body = {"inputs": {"question": "Where?", "context": context}, "parameters": options, "model": "answers"}
    found = http.post("/", json=body).json()
    assert found == json.loads(json.dumps(ufbert.QuestionAnswerer(folders["answers"])("Where?", context, **options)))


@pytest.mark.parametrize(
    ("name", "inputs", "parameters", "part"),
    [
        ("fill", "no mask", {}, "expected at least one [MASK]"),
        ("fill", "[MASK]", {"top_k": 10**6}, "from 1 to"),
        ("fill", ["[MASK] [MASK]"] * 100, {"top_k": 100}, "masks * top_k"),
        ("fill", "[MASK]", {"targets": ["a"]}, "targets"),
        ("entities", "a", {"aggregation_strategy": "best"}, "expected one of none, simple"),
        ("answers", {"question": "a " * 300, "context": "b"}, {}, "inputs.question: expected at most"),
        ("answers", {"question": "a", "context": "b"}, {"max_seq_len": 40, "doc_stride": 36}, "doc_stride"),
        ("answers", {"question": "a"}, {}, "inputs.context"),
        ("answers", "a", {}, "inputs: expected a JSON object"),
    ],
)
def test_refusals_of_tasks(http, name, inputs, parameters, part):
    response = http.post("/", json={"inputs": inputs, "parameters": parameters, "model": name})
    assert response.status_code == 422 and part in response.json()["error"]


def test_routes_of_trees(http, folders):
    found = http.post("/routes", json={"inputs": "the cat"}).json()
    assert found["model"] == "trees" and found["tokens"] == ["[CLS]", "the", "cat", "[SEP]"]
    leaves = np.array(found["layers"])
    assert leaves.shape == (2, 4, 2) and leaves.min() >= 0 and leaves.max() < 2 ** found["depth"]
    assert http.post("/routes", json={"inputs": "the cat", "model": "tiny"}).status_code == 424


def test_leaves_are_those_that_recording_counts(http, folders):
    text = "the cat a b c"
    found = np.array(http.post("/routes", json={"inputs": text}).json()["layers"])  # (L, T, P)
    recorded = record_routes(folders["trees"], [text])
    for layer, leaves in zip(recorded.layers, found, strict=True):
        counted = [np.bincount(tree, minlength=layer.leaves.shape[1]) for tree in leaves.T]
        np.testing.assert_array_equal(layer.leaves, counted)


def test_the_share_of_visited_leaves_grows(http):
    def share():
        line = next(
            line for line in http.get("/metrics").text.splitlines() if line.startswith("ufbert_leaves_visited{")
        )
        assert 'model="trees"' in line
        return float(line.split()[-1])

    before = share()
    http.post("/embed", json={"inputs": "a b c d e f g h i j k l m n o p q r s t u v w x y z", "model": "trees"})
    assert before < share() <= 1
