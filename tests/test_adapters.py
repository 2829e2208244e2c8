"""Adapters where their packages are missing, and what they share. The adapters themselves: ``.ci/run-integrations``."""

import json
import pickle
import sys
from importlib import import_module

import numpy as np
import pytest
from conftest import write_sentence_model

import ufbert
from ufbert.integrations.adapter import Adapter, TextAdapter

PACKAGES = {
    "bertopic": ("bertopic", "bertopic"),
    "chroma": ("chromadb", "chromadb"),
    "haystack": ("haystack", "haystack-ai"),
    "keybert": ("keybert", "keybert"),
    "langchain": ("langchain_core", "langchain-core"),
    "llama_index": ("llama_index", "llama-index-core"),
    "mteb": ("mteb", "mteb"),
    "sklearn": ("sklearn", "scikit-learn"),
    "spacy": ("spacy", "spacy"),
}


@pytest.mark.parametrize("adapter", PACKAGES)
def test_a_missing_package_is_named_with_its_command(adapter, monkeypatch):
    module, package = PACKAGES[adapter]
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"ufbert.integrations.{adapter}", raising=False)
    with pytest.raises(ImportError, match=f"needs the package {package}, .*; pip install {package}$"):
        import_module(f"ufbert.integrations.{adapter}")


@pytest.fixture
def folder(tmp_path):
    folder = write_sentence_model(tmp_path / "model")
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "the ", "document": "a "}})
    )
    return str(folder)


def test_queries_and_documents_have_the_models_prompts(folder):
    adapter, encoder = Adapter(folder, normalize_embeddings=True, truncate_dim=5), ufbert.SentenceEncoder(folder)
    settings = {"normalize_embeddings": True, "truncate_dim": 5}
    np.testing.assert_array_equal(adapter.queries(["cat"]), encoder.encode(["the cat"], **settings))
    np.testing.assert_array_equal(adapter.documents(["cat"]), encoder.encode(["a cat"], **settings))
    np.testing.assert_array_equal(TextAdapter(folder).embed(iter(["cat"])), encoder.encode(["cat"]))


def test_adapters_of_the_same_settings_share_an_encoder(folder):
    assert Adapter(folder).encoder is Adapter(folder, truncate_dim=5).encoder
    assert Adapter(folder).encoder is not Adapter(folder, max_seq_length=8).encoder
    encoder = ufbert.SentenceEncoder(folder)
    assert Adapter(encoder).encoder is encoder


def test_a_pickle_has_settings_alone(folder):
    adapter = Adapter(folder, dtype="int8")
    wanted = adapter.texts(["the cat"])
    stored = pickle.dumps(adapter)
    assert len(stored) < 1_000 and pickle.loads(stored) == adapter
    np.testing.assert_array_equal(pickle.loads(stored).texts(["the cat"]), wanted)


def test_settings_are_values_of_json(folder):
    assert Adapter(**json.loads(json.dumps(Adapter(folder, "int8").settings()))) == Adapter(folder, "int8")
    with pytest.raises(ufbert.InputError, match="name its folder"):
        Adapter(ufbert.SentenceEncoder(folder)).settings()


def test_one_str_is_refused(folder):
    with pytest.raises(ufbert.InputError, match="several texts, got one str"):
        Adapter(folder).texts("the cat")
