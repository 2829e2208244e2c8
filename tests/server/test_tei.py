"""TEI's routes, bodies and errors."""

import numpy as np
import pytest

import ufbert
from ufbert.heads import normalize

pytest_plugins = "serving"


@pytest.fixture(scope="module")
def encoder(folders):
    return ufbert.SentenceEncoder(folders["tiny"])


def test_embed_is_always_two_levels(http, encoder):
    response = http.post("/embed", json={"inputs": "the cat"})
    assert response.status_code == 200
    expected = encoder.encode(["the cat"], normalize_embeddings=True)
    np.testing.assert_array_equal(np.array(response.json(), np.float32), expected)
    assert response.headers["x-compute-tokens"] == "4" and response.headers["x-compute-characters"] == "7"
    assert response.headers["x-request-id"]


def test_embed_options(http, encoder):
    def embed(**body):
        return np.array(http.post("/embed", json={"inputs": ["the cat", "a b"], **body}).json(), np.float32)

    plain = encoder.encode(["the cat", "a b"])
    np.testing.assert_array_equal(embed(normalize=False), plain)
    np.testing.assert_array_equal(embed(dimensions=5), normalize(plain[:, :5]))  # cut first, then scaled
    prompted = encoder.encode(["the cat", "a b"], prompt_name="query")
    np.testing.assert_array_equal(embed(normalize=False, prompt_name="query"), prompted)
    np.testing.assert_array_equal(embed(model="tiny", unknown=1, truncate=None), normalize(plain))


def test_truncation(http, encoder):
    long = "a " * 50 + "the"
    assert http.post("/embed", json={"inputs": long}).status_code == 200
    refused = http.post("/embed", json={"inputs": ["a", long], "truncate": False})
    assert refused.status_code == 422 and refused.json()["error_type"] == "Validation"
    assert "`inputs` must have less than 33 tokens. Given: 53" in refused.json()["error"]
    right, left = (
        np.array(http.post("/embed", json={"inputs": long, "truncation_direction": side}).json(), np.float32)
        for side in ("right", "Left")
    )
    np.testing.assert_array_equal(right, encoder.encode([long], normalize_embeddings=True))
    assert (left != right).any()


def test_embed_all_has_special_tokens(http):
    found = http.post("/embed_all", json={"inputs": ["the cat", "a"]}).json()
    assert [np.array(rows).shape for rows in found] == [(4, 12), (3, 12)]


def test_predict(http, folders):
    classifier = ufbert.TextClassifier(folders["classes"])
    single = http.post("/predict", json={"inputs": "The fish was cold."}).json()
    assert {row["label"]: np.float32(row["score"]) for row in single} == {
        row["label"]: np.float32(row["score"]) for row in classifier("The fish was cold.", top_k=None)
    }
    assert [row["score"] for row in single] == sorted((row["score"] for row in single), reverse=True)
    pair = http.post("/predict", json={"inputs": ["The fish", "was cold."]}).json()
    assert np.float32(pair[0]["score"]) == np.float32(classifier(("The fish", "was cold."))[0]["score"])
    batch = http.post("/predict", json={"inputs": [["The fish was cold."], ["The fish", "was cold."]]}).json()
    assert batch == [single, pair]
    raw = http.post("/predict", json={"inputs": "The fish", "raw_scores": True}).json()
    assert np.float32(raw[0]["score"]) == classifier.logits(["The fish"]).max()
    three = http.post("/predict", json={"inputs": ["a", "b", "c"]})
    assert three.status_code == 422 and "[[string], ...]" in three.json()["error"]


def test_rerank(http, folders):
    classifier = ufbert.TextClassifier(folders["relevance"])
    texts = ["a cat", "the dog", "b"]
    body = {"query": "the cat", "texts": texts, "return_text": True}
    found = http.post("/rerank", json=body).json()
    expected = [np.float32(classifier([("the cat", text)])[0]["score"]) for text in texts]
    assert [np.float32(row["score"]) for row in found] == sorted(expected, reverse=True)
    assert all(np.float32(row["score"]) == expected[row["index"]] for row in found)
    assert all(row["text"] == texts[row["index"]] for row in found)
    raw = http.post("/rerank", json=body | {"raw_scores": True, "return_text": False}).json()
    assert [row["index"] for row in raw] == [row["index"] for row in found] and "text" not in raw[0]


def test_rerank_with_an_encoder_is_cosine(http, encoder):
    found = http.post("/rerank", json={"query": "cat", "texts": ["a cat", "dog"], "model": "tiny"}).json()
    query = encoder.encode("cat", prompt_name="query", normalize_embeddings=True)
    texts = encoder.encode(["a cat", "dog"], prompt_name="document", normalize_embeddings=True)
    for row in found:
        assert row["score"] == pytest.approx(float(texts[row["index"]] @ query), abs=1e-6)


def test_similarity(http, encoder):
    inputs = {"source_sentence": "the cat", "sentences": ["a cat", "b"]}
    found = http.post("/similarity", json={"inputs": inputs, "parameters": {"truncate": True}}).json()
    np.testing.assert_allclose(found, encoder.similarity(*map(encoder.encode, inputs.values()))[0], atol=1e-6)


def test_tokenize_and_decode(http):
    (tokens,) = http.post("/tokenize", json={"inputs": "the cat"}).json()
    assert [token["text"] for token in tokens] == ["[CLS]", "the", "cat", "[SEP]"]
    assert tokens[0] == {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert (tokens[2]["start"], tokens[2]["stop"], tokens[2]["special"]) == (4, 7, False)
    (bare,) = http.post("/tokenize", json={"inputs": "the cat", "add_special_tokens": False}).json()
    ids = [token["id"] for token in bare]
    assert ids == [token["id"] for token in tokens[1:-1]]
    assert http.post("/decode", json={"ids": ids}).json() == ["the cat"]
    assert http.post("/decode", json={"ids": [ids, ids[:1]]}).json() == ["the cat", "the"]
    assert http.post("/decode", json={"ids": [10**9]}).status_code == 422


def test_info(http):
    info = http.get("/info").json()
    assert info["model_id"] == "tiny" and info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == 32 and info["max_client_batch_size"] == 2048
    assert len(info["model_sha"]) == 64
    assert "reranker" in http.get("/info?model=relevance").json()["model_type"]
    labels = http.get("/info?model=classes").json()["model_type"]["classifier"]
    assert {str(index): label for label, index in labels["label2id"].items()} == labels["id2label"]
    assert http.get("/info?model=nothing").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "part"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", "cannot be empty"),
        ("/embed", {"inputs": ["a", ""]}, 400, "Empty", "cannot be empty"),
        ("/embed", {"inputs": [1, 2]}, 400, "Validation", "token ids"),
        ("/embed", {"inputs": [[1, 2]]}, 400, "Validation", "check_embedding_ctx_length=False"),
        ("/embed", {"inputs": 5}, 422, "Validation", "inputs: expected a string, got 5"),
        ("/embed", {"inputs": ["a", None]}, 422, "Validation", r"inputs[1]: expected a string, got None"),
        ("/embed", {}, 422, "Validation", "inputs: expected a value"),
        ("/embed", [], 422, "Validation", "expected a JSON object"),
        ("/embed", {"inputs": "a", "dimensions": 0}, 422, "Validation", "dimensions: expected an integer from 1 to 12"),
        ("/embed", {"inputs": "a", "dimensions": True}, 422, "Validation", "got True"),
        ("/embed", {"inputs": "a", "normalize": 1}, 422, "Validation", "normalize: expected true or false, got 1"),
        ("/embed", {"inputs": "a", "prompt_name": "x"}, 422, "Validation", 'Available prompts: ["document", "query"]'),
        ("/embed", {"inputs": "a", "model": "x"}, 404, "NotFound", "expected one of answers, classes"),
        ("/embed", {"inputs": "a", "model": "fill"}, 424, "Backend", "not a model for embedding"),
        ("/predict", {"inputs": "a", "model": "tiny"}, 424, "Backend", "is not a"),
        ("/rerank", {"query": "a", "texts": ["b"], "model": "classes"}, 424, "Backend", "not a re-ranker model"),
        ("/rerank", {"query": "a", "texts": []}, 400, "Empty", "cannot be empty"),
        ("/similarity", {"inputs": {"source_sentence": "", "sentences": ["b"]}}, 400, "Empty", "source_sentence"),
    ],
)
def test_errors(http, path, body, status, kind, part):
    response = http.post(path, json=body)
    assert (response.status_code, response.json()["error_type"]) == (status, kind)
    assert part in response.json()["error"]


def test_bodies_that_are_no_json(http):
    json_type = {"content-type": "application/json"}
    for content in (b"", b"{", b"\xff", b'{"inputs": "\\ud800"}', b"[" * 100_000):
        response = http.post("/embed", content=content, headers=json_type)
        assert (response.status_code, response.json()["error_type"]) == (400, "Validation")
    assert http.post("/embed", content=b'{"inputs":"a"}', headers={"content-type": "text/plain"}).status_code == 415
    zipped = json_type | {"content-encoding": "gzip"}
    assert http.post("/embed", content=b'{"inputs":"a"}', headers=zipped).status_code == 415
    charset = {"content-type": "application/json; charset=utf-8"}
    assert http.post("/embed", content=b'{"inputs":"a"}', headers=charset).status_code == 200


def test_paths_and_methods_that_do_not_exist(http):
    assert http.get("/nothing").status_code == 404 and "error" in http.get("/nothing").json()
    refused = http.get("/embed")
    assert refused.status_code == 405 and "POST" in refused.headers["allow"]
