"""Folders that share another one's encoder: what they compute, and what they must not reach."""

import json

import numpy as np
import pytest
from conftest import BERT_CONFIG, bert_tensors, write_bert
from safetensors.numpy import load_file

import ufbert
from ufbert import CheckpointError

HEAD = {"classifier.weight": (2, 12), "classifier.bias": (2,), "bert.pooler.dense.bias": (12,)}
TOP = "bert.encoder.layer.1."


def write_shared(folder, base="encoder", **changes):
    """A classifier with its own last layer and head, and no tokenizer."""
    rng = np.random.default_rng(1)
    tensors = {"bert." + name: array for name, array in bert_tensors(BERT_CONFIG, seed=1).items()}
    tensors = {name: array for name, array in tensors.items() if name.startswith(TOP) or "pooler" in name}
    tensors |= {name: rng.standard_normal(shape).astype(np.float32) for name, shape in HEAD.items()}
    write_bert(folder, tensors, architectures=["BertForSequenceClassification"], ufbert_base_model=base, **changes)
    (folder / "vocab.txt").unlink()
    return folder


@pytest.fixture
def shared(tmp_path):
    write_bert(tmp_path / "encoder")
    return write_shared(tmp_path / "classifier")


def whole(tmp_path, shared):
    """The same classifier with all weights in one file."""
    tensors = {"bert." + name: array for name, array in bert_tensors(BERT_CONFIG).items()}
    tensors |= load_file(shared / "model.safetensors")
    return write_bert(tmp_path / "whole", tensors, architectures=["BertForSequenceClassification"])


@pytest.mark.parametrize("with_head", [False, True])
def test_it_computes_what_one_file_would(tmp_path, shared, with_head):
    if with_head:  # the base may have a head itself, which is not taken over
        tensors = {"bert." + name: array for name, array in bert_tensors(BERT_CONFIG).items()}
        tensors["classifier.weight"], tensors["classifier.bias"] = np.ones((3, 12), np.float32), np.ones(3, np.float32)
        labels = {"0": "x", "1": "y", "2": "z"}
        write_bert(tmp_path / "encoder", tensors, architectures=["BertForSequenceClassification"], id2label=labels)
    texts = ["the cat", ("a b", "c d")]
    expected = ufbert.TextClassifier(whole(tmp_path, shared)).logits(texts)
    np.testing.assert_array_equal(ufbert.TextClassifier(shared).logits(texts), expected)


def test_a_converted_copy_stands_alone(tmp_path, shared):
    copy = ufbert.convert(shared, tmp_path / "elsewhere" / "copy", "float32")
    assert "ufbert_base_model" not in json.loads((copy / "config.json").read_text())
    np.testing.assert_array_equal(
        ufbert.TextClassifier(copy).logits(["the cat"]), ufbert.TextClassifier(shared).logits(["the cat"])
    )


@pytest.mark.parametrize("name", ["../encoder", "/encoder", "", ".", "..", "a/b", "a\0b", 3, ["encoder"]])
def test_only_a_name_beside_it_is_followed(tmp_path, name):
    write_bert(tmp_path / "encoder")
    with pytest.raises(CheckpointError, match="base_model: expected the name of a folder beside this one"):
        ufbert.TextClassifier(write_shared(tmp_path / "classifier", name))


def test_missing_bases_chains_and_circles(tmp_path, shared):
    with pytest.raises(
        CheckpointError, match=r"nothing: expected the model folder .* ufbert_base_model, it is missing"
    ):
        ufbert.TextClassifier(write_shared(tmp_path / "lost", "nothing"))
    with pytest.raises(CheckpointError, match="it is missing; put it there"):
        ufbert.TextClassifier(write_shared(tmp_path / "circle", "circle"))
    with pytest.raises(CheckpointError, match="found one that has a base model itself"):
        ufbert.TextClassifier(write_shared(tmp_path / "chain", "classifier"))


def test_a_base_of_another_shape_is_refused(tmp_path):
    write_bert(tmp_path / "encoder")
    with pytest.raises(CheckpointError, match=r"word_embeddings.weight: expected shape"):
        ufbert.TextClassifier(write_shared(tmp_path / "classifier", vocab_size=50))


def test_a_missing_head_is_not_taken_from_the_base(tmp_path, shared):
    (shared / "model.safetensors").unlink()
    from ufbert.checkpoint.tensors import write_tensors

    write_tensors(shared / "model.safetensors", {"bert.pooler.dense.bias": ("F32", np.zeros(12, np.float32))})
    with pytest.raises(CheckpointError, match=r"tensor classifier.weight: expected it"):
        ufbert.TextClassifier(shared)
