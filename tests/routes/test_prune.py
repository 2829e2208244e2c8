"""Pruned folders: the same bits on the corpus, or nothing at all."""

import json
import os
import sys

import numpy as np
import pytest
from conftest import GOLDEN, VOCABULARY, add_mean_pooling, fff_tensors, some_texts, write_crammed_fff, write_fff
from safetensors.numpy import load_file

import ufbert
from ufbert import CheckpointError, InputError
from ufbert.checkpoint.tensors import write_tensors
from ufbert.routes import Corpus, prune, record_routes

TEXTS = some_texts(20)


def write_deep(folder, **changes):
    return write_fff(folder, num_trees=2, depth=6, **changes)


def write_head(folder):
    rng = np.random.default_rng(0)
    head = {"classifier.weight": rng.standard_normal((2, 12)), "classifier.bias": rng.standard_normal(2)}
    tensors = {"bert." + name: array for name, array in fff_tensors().items()}
    tensors |= {name: array.astype(np.float32) for name, array in head.items()}
    return write_fff(folder, tensors, architectures=["BertForTokenClassification"])


def write_converted(folder):
    return ufbert.convert(write_deep(folder.with_name("float32")), folder, "bfloat16")


def write_shared(folder):
    """A head and the last layer alone, over the encoder beside it."""
    write_fff(folder.with_name("encoder"))
    write_head(folder)
    tensors = load_file(folder / "model.safetensors")
    mine = {name: array for name, array in tensors.items() if ".layer.1." in name or name.startswith("classifier")}
    write_fff(folder, mine, architectures=["BertForTokenClassification"], ufbert_base_model="encoder")
    (folder / "vocab.txt").unlink()
    return folder


MAKE = {
    "bert": write_deep,
    "sentence": lambda folder: add_mean_pooling(write_deep(folder)),
    "head": write_head,
    "shared encoder": write_shared,
    "crammed": write_crammed_fff,
    "bfloat16": write_converted,
    "no bias": lambda folder: write_deep(folder, output_bias=False),
}


@pytest.fixture(params=MAKE)
def source(request, tmp_path):
    return MAKE[request.param](tmp_path / "source")


def test_the_corpus_does_not_notice(source, tmp_path):
    before = record_routes(source, TEXTS)
    pruned = prune(source, TEXTS, tmp_path / "target")
    assert pruned.num_texts == 20 and pruned.num_tokens == before.num_tokens and pruned.dtypes == ("float32",)
    model, original = ufbert.load(tmp_path / "target"), ufbert.load(source)
    assert model.config.pruned and model.config.task == original.config.task
    for text in TEXTS:
        ids = [[2, *(VOCABULARY.index(word) for word in text.split() if word in VOCABULARY), 3]]
        found, expected = model(ids), original(ids)
        if all(word in VOCABULARY for word in text.split()):
            np.testing.assert_array_equal(found.last_hidden_state, expected.last_hidden_state)
            if expected.logits is not None:
                np.testing.assert_array_equal(found.logits, expected.logits)
    for layer, routes in zip(pruned.layers, before.layers, strict=True):
        assert layer.num_nodes == routes.visits.size and layer.kept == (routes.visits > 0).sum()


def test_what_is_stored(tmp_path):
    source = write_deep(tmp_path / "source")
    before = record_routes(source, TEXTS)
    pruned = prune(source, TEXTS, tmp_path / "target")
    old, new = load_file(source / "model.safetensors"), load_file(tmp_path / "target" / "model.safetensors")
    for index, (layer, routes) in enumerate(zip(pruned.layers, before.layers, strict=True)):
        stem = f"encoder.layer.{index}.ffn."
        nodes = np.flatnonzero(routes.visits)
        assert 0 < len(nodes) < layer.num_nodes
        np.testing.assert_array_equal(new[stem + "nodes"], nodes)
        assert new[stem + "nodes"].dtype == np.int32
        np.testing.assert_array_equal(new[stem + "linear_in.weight"], old[stem + "linear_in.weight"][nodes])
        np.testing.assert_array_equal(new[stem + "linear_out.weight"], old[stem + "linear_out.weight"][:, nodes])
        assert layer.bytes_before == 254 * (12 + 12 + 1) * 4
        assert layer.bytes_after == len(nodes) * ((12 + 12 + 1) * 4 + 4)
    for name in old:
        if ".ffn.linear_in" not in name and not name.endswith("linear_out.weight"):
            np.testing.assert_array_equal(new[name], old[name])


def test_embeddings_of_a_sentence_folder_with_dense(tmp_path):
    source = MAKE["sentence"](tmp_path / "source")
    modules = json.loads((source / "modules.json").read_text())
    (source / "modules.json").write_text(
        json.dumps([*modules, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    )
    (source / "2_Dense").mkdir()
    (source / "2_Dense" / "config.json").write_text('{"in_features": 12, "out_features": 4, "bias": false}')
    weight = np.random.default_rng(0).standard_normal((4, 12)).astype(np.float32)
    write_tensors(source / "2_Dense" / "model.safetensors", {"linear.weight": ("F32", weight)})
    prune(source, TEXTS, tmp_path / "target")
    expected = ufbert.SentenceEncoder(source).encode(TEXTS)
    np.testing.assert_array_equal(ufbert.SentenceEncoder(tmp_path / "target").encode(TEXTS), expected)


def test_several_precisions(tmp_path):
    dtypes = ("float32", "bfloat16", "int8")
    source = MAKE["sentence"](tmp_path / "source")
    prune(source, TEXTS, tmp_path / "target", dtypes)
    for dtype in dtypes:
        expected = ufbert.SentenceEncoder(source, dtype=dtype).encode(TEXTS)
        np.testing.assert_array_equal(ufbert.SentenceEncoder(tmp_path / "target", dtype=dtype).encode(TEXTS), expected)


@pytest.mark.parametrize("make", ["bert", "crammed"])
def test_a_pruned_model_can_be_pruned_again(tmp_path, make):
    source = MAKE[make](tmp_path / "source")
    prune(source, TEXTS, tmp_path / "once")
    prune(tmp_path / "once", TEXTS[:5], tmp_path / "twice")
    prune(source, TEXTS[:5], tmp_path / "direct")
    twice, direct = (load_file(tmp_path / name / "model.safetensors") for name in ("twice", "direct"))
    assert twice.keys() == direct.keys()
    for name in twice:
        np.testing.assert_array_equal(twice[name], direct[name])
    again = prune(tmp_path / "once", TEXTS, tmp_path / "again")
    assert all(layer.bytes_before == layer.bytes_after for layer in again.layers)
    # On other texts, dropped nodes are visited: they are zero rows, and stay so.
    other = some_texts(50, seed=9)
    prune(tmp_path / "once", other, tmp_path / "other")
    found, expected = record_routes(tmp_path / "other", other), record_routes(tmp_path / "once", other)
    np.testing.assert_array_equal(found.layers[1].visits, expected.layers[1].visits)


def test_a_model_that_would_differ_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[prune.__module__], "_visited", lambda runs: [np.int32([0, 1, 127, 128])] * 2)
    source = write_deep(tmp_path / "source")
    with pytest.raises(CheckpointError, match=r"\(float32\): expected the same bits.*found other bits in 1 of 1"):
        prune(source, TEXTS, tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]


def test_a_corpus_that_changes_is_noticed(tmp_path):
    class Growing(list):
        def __iter__(self):
            self.append("more of it")
            return super().__iter__()

    with pytest.raises(InputError, match="expected the same when they are read twice, got"):
        prune(write_deep(tmp_path / "source"), Growing(["a b"]), tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("texts", [iter(["a"]), (text for text in "ab"), [], "text", 3, [3]])
def test_texts_that_cannot_be_read_twice(tmp_path, texts):
    with pytest.raises(InputError, match="texts: expected"):
        prune(write_deep(tmp_path / "source"), texts, tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("dtypes", [(), "float32", ("float64",)])
def test_dtypes_that_are_none(tmp_path, dtypes):
    with pytest.raises(InputError, match="dtype"):
        prune(write_deep(tmp_path / "source"), TEXTS, tmp_path / "target", dtypes)


def test_existing_folders(tmp_path):
    source = write_deep(tmp_path / "models" / "source")
    target = write_deep(tmp_path / "target")
    with pytest.raises(InputError, match="expected a name that is free"):
        prune(source, TEXTS, target)
    for place in (source, tmp_path / "models", tmp_path):
        with pytest.raises(InputError, match="expected a folder beside the model"):
            prune(source, TEXTS, place, force=True)
    prune(source, TEXTS, target, force=True)
    assert ufbert.load(target).config.pruned and not ufbert.load(source).config.pruned
    assert sorted(os.listdir(tmp_path)) == ["models", "target"]


def test_dense_models_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="expected a model with FFF layers"):
        prune(GOLDEN / "pipelines" / "fill-mask", TEXTS, tmp_path / "target")
    assert os.listdir(tmp_path) == []


def test_a_corpus_of_a_file(tmp_path):
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    pruned = prune(write_deep(tmp_path / "source"), Corpus(tmp_path / "texts", 7), tmp_path / "target")
    assert pruned.num_texts == 7
