"""Folders written by sentence-transformers give the embeddings that it computed (tolerance: 1e-5)."""

import numpy as np
import pytest
from conftest import GOLDEN
from safetensors.numpy import load_file

import ufbert

FOLDERS = sorted((GOLDEN / "sentence-transformers").iterdir())
CALLS = {
    "embeddings": {},
    "truncate_8": {"truncate_dim": 8},
    "truncate_8_normalized": {"truncate_dim": 8, "normalize_embeddings": True},
    "normalized": {"normalize_embeddings": True},
    "prompt_name_query": {"prompt_name": "query"},
    "prompt_name_document": {"prompt_name": "document"},
    "prompt_custom": {"prompt": "Who knows the answer: "},
    "prompt_empty": {"prompt": ""},
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_embeddings(folder):
    texts = (folder / "texts.txt").read_text(encoding="utf-8").split("\n")[:-1]
    expected = load_file(folder / "expected.safetensors")
    encoder = ufbert.SentenceEncoder(folder)
    assert encoder.max_seq_length == expected.pop("max_seq_length")
    assert expected
    for name, embeddings in expected.items():
        np.testing.assert_allclose(encoder.encode(texts, **CALLS[name]), embeddings, rtol=0, atol=1e-5, err_msg=name)
