"""The bundled models."""

import hashlib
import re

import numpy as np
import pytest
import ufbert_weights
from conftest import GOLDEN
from safetensors.numpy import load_file

import ufbert
from ufbert.errors import CheckpointError


def test_bundled_dense_model_gives_the_embeddings_of_the_float32_original():
    folder = GOLDEN / "all-minilm-l6-v2"
    texts = (folder / "texts.txt").read_text(encoding="utf-8").split("\n")[:-1]
    expected = load_file(folder / "expected.safetensors")["embeddings"]
    embeddings = ufbert.SentenceEncoder("all-MiniLM-L6-v2").encode(texts)
    cosine = np.einsum("nd,nd->n", embeddings.astype(np.float64), expected)
    cosine /= np.linalg.norm(embeddings, axis=1) * np.linalg.norm(expected.astype(np.float64), axis=1)
    assert (1 - cosine).max() <= 1e-5


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentiment"])
def test_bundled_weights_are_the_file_that_source_names(name):
    folder = ufbert_weights.path(name)
    named = re.findall(r"`([0-9a-f]{64})`", (folder / "SOURCE.md").read_text())
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in named


def test_every_bundled_model_loads():
    for folder in map(ufbert_weights.path, ufbert_weights.names()):
        if (folder / "modules.json").exists():
            assert ufbert.SentenceEncoder(folder).encode("A text.").shape == (384,)
        else:
            assert len(ufbert.TextClassifier(folder)("A text.", top_k=None)) > 1


def test_bundled_classifier_tells_praise_from_blame_and_is_small():
    texts = ["A charming, funny and moving film.", "A tedious mess with wooden acting.", "I loved every minute of it."]
    assert [found["label"] for found in ufbert.TextClassifier()(texts)] == ["positive", "negative", "positive"]
    assert (ufbert_weights.path("sentiment") / "model.safetensors").stat().st_size < 10_000_000


def test_a_folder_comes_before_a_bundled_model_of_its_name(tmp_path, monkeypatch):
    assert ufbert.SentenceEncoder("all-MiniLM-L6-v2").dimension == 384
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    with pytest.raises(CheckpointError, match="modules.json"):
        ufbert.SentenceEncoder("all-MiniLM-L6-v2")


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v3", "./all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_name_of_no_folder_and_no_bundled_model_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="expected a model folder"):
        ufbert.SentenceEncoder(name)
