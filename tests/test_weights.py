"""The bundled models."""

import hashlib
import json
import re
from importlib.metadata import entry_points

import numpy as np
import pytest
import ufbert_weights
from conftest import GOLDEN
from pinned.measure import FOLDER as PINNED
from pinned.measure import OPINIONS, measure
from safetensors.numpy import load_file

import ufbert
from ufbert.errors import CheckpointError


def cosines_to_the_original(name):
    """Of the golden texts' embeddings, to those of the float32 original."""
    folder = GOLDEN / "all-minilm-l6-v2"
    texts = (folder / "texts.txt").read_text(encoding="utf-8").split("\n")[:-1]
    expected = load_file(folder / "expected.safetensors")["embeddings"].astype(np.float64)
    embeddings = ufbert.SentenceEncoder(name).encode(texts).astype(np.float64)
    products = np.einsum("nd,nd->n", embeddings, expected)
    return products / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(expected, axis=1)


def test_bundled_dense_model_gives_the_embeddings_of_the_float32_original():
    assert (1 - cosines_to_the_original("all-MiniLM-L6-v2")).max() <= 1e-5


@pytest.mark.parametrize("name", ufbert_weights.names())
def test_bundled_models_give_what_they_gave_when_they_were_bundled(name):
    """`tests/pinned/measure.py` writes what is expected here, when a model is bundled."""
    pinned = json.loads((PINNED / f"{name}.json").read_text())
    found = measure(name)
    for dtype, kinds in pinned.pop("cosine", {}).items():
        for kind, expected in kinds.items():
            assert found["cosine"][dtype][kind]["mean"] > expected["mean"] - 0.002, (dtype, kind)
            assert found["cosine"][dtype][kind]["lowest"] > expected["lowest"] - 0.01, (dtype, kind)
    assert found.pop("lowest_probability", 1.0) > pinned.pop("lowest_probability", 1.01) - 0.02
    assert pinned.items() <= found.items()


def test_the_default_is_the_larger_one_with_trees():
    assert ufbert_weights.path().name == "all-MiniLM-L6-v2-fff-30x7"


@pytest.mark.parametrize("name", ufbert_weights.names())
def test_bundled_weights_are_the_file_that_source_names(name):
    folder = ufbert_weights.path(name)
    named = re.findall(r"`([0-9a-f]{64})`", (folder / "SOURCE.md").read_text())
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in named


def test_every_bundled_model_has_an_entry_point():
    points = [point for point in entry_points(group="ufbert.models") if point.value == "ufbert_weights"]
    assert sorted(point.name for point in points) == ufbert_weights.names()


def test_every_bundled_model_loads():
    for folder in map(ufbert_weights.path, ufbert_weights.names()):
        if (folder / "modules.json").exists():
            assert ufbert.SentenceEncoder(folder).encode("A text.").shape == (384,)
        else:
            assert len(ufbert.TextClassifier(folder)("A text.", top_k=None)) > 1


def test_bundled_classifier_tells_praise_from_blame_and_is_small():
    assert [found["label"] for found in ufbert.TextClassifier()(list(OPINIONS))] == list(OPINIONS.values())
    assert (ufbert_weights.path("sentiment") / "model.safetensors").stat().st_size < 10_000_000


def test_a_folder_comes_before_a_bundled_model_of_its_name(tmp_path, monkeypatch):
    assert ufbert.SentenceEncoder("all-MiniLM-L6-v2").dimension == 384
    monkeypatch.chdir(tmp_path)
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    with pytest.raises(CheckpointError, match=r"modules.json"):
        ufbert.SentenceEncoder("all-MiniLM-L6-v2")


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v3", "./all-MiniLM-L6-v2"])
def test_a_name_of_no_folder_and_no_bundled_model_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="expected a model folder"):
        ufbert.SentenceEncoder(name)


def test_recorded_digests_are_those_of_the_files():
    root = ufbert_weights.path().parent
    recorded = dict(line.split()[::-1] for line in (root / "SHA256SUMS").read_text().splitlines())
    files = {f"{name}/model.safetensors" for name in ufbert_weights.names()}
    assert set(recorded) == files
    for name, digest in recorded.items():
        assert hashlib.sha256((root / name).read_bytes()).hexdigest() == digest
        assert digest in (root / name).with_name("SOURCE.md").read_text(), "SOURCE.md says another one"
