"""OpenAI's routes."""

from base64 import b64decode

import numpy as np
import pytest

import ufbert

pytest_plugins = "serving"


def test_embeddings_in_both_forms(http, folders):
    body = {"input": ["the cat", "a b"], "model": "tiny"}
    found = http.post("/v1/embeddings", json=body).json()
    expected = ufbert.SentenceEncoder(folders["tiny"]).encode(body["input"], normalize_embeddings=True)
    np.testing.assert_array_equal(np.array([row["embedding"] for row in found["data"]], np.float32), expected)
    assert [row["index"] for row in found["data"]] == [0, 1] and found["object"] == "list"
    assert found["model"] == "tiny" and found["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    packed = http.post("/embeddings", json=body | {"encoding_format": "base64"}).json()
    rows = [np.frombuffer(b64decode(row["embedding"]), "<f4") for row in packed["data"]]
    np.testing.assert_array_equal(rows, expected)


def test_models(http):
    listed = http.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]][:2] == ["tiny", "trees"]
    assert http.get("/v1/models/trees").json() == listed["data"][1]
    missing = http.get("/v1/models/gpt")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("change", "status", "code", "part"),
    [
        ({"model": "text-embedding-3-small"}, 404, "model_not_found", "expected one of"),
        ({"input": [[101, 102]]}, 400, "token_ids", "check_embedding_ctx_length=False"),
        ({"input": []}, 400, None, "cannot be empty"),
        ({"dimensions": 13}, 400, None, "from 1 to 12"),
        ({"encoding_format": "hex"}, 400, None, "expected one of float, base64"),
        ({"model": "classes"}, 400, None, "classes"),
    ],
)
def test_errors_in_openais_form(http, change, status, code, part):
    response = http.post("/v1/embeddings", json={"input": "a"} | change)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert part in error["message"] and error["type"] == "invalid_request_error"
