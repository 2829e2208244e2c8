"""Which tensor of a file a model takes, where a checkpoint has more, fewer or other ones than usual."""

import json

import numpy as np
import pytest
from conftest import BERT_CONFIG, GOLDEN, write_bert
from glue_files import write_classifier
from safetensors.numpy import load_file, save_file

import ufbert
from ufbert import CheckpointError
from ufbert.glue import find_classifiers

IDS = [[2, 5, 6, 7, 3]]
DECODER, BIAS = "cls.predictions.decoder.weight", "cls.predictions.bias"
TABLE, OTHER_BIAS = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.bias"
DISTILBERT = GOLDEN / "distilbert"


def changed(source, folder, change, **config):
    """A golden folder with its tensors and configuration changed."""
    folder.mkdir()
    tensors = load_file(source / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(json.loads((source / "config.json").read_text()) | config))
    return folder


@pytest.mark.parametrize(
    ("source", "old", "new"),
    [
        ("bert-mlm", BIAS, OTHER_BIAS),
        ("bert-mlm", TABLE, DECODER),
        ("distilbert/masked-lm", "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
    ],
)
def test_tied_tensors_are_found_under_either_name(tmp_path, source, old, new):
    folder = changed(GOLDEN / source, tmp_path / "model", lambda tensors: tensors.update({new: tensors.pop(old)}))
    expected = ufbert.load(GOLDEN / source)(IDS).logits
    np.testing.assert_array_equal(ufbert.load(folder)(IDS).logits, expected)


@pytest.mark.parametrize(
    ("source", "first", "second"),
    [
        ("bert-mlm", TABLE, DECODER),
        ("bert-mlm", BIAS, OTHER_BIAS),
        ("distilbert/masked-lm", "distilbert.embeddings.word_embeddings.weight", "vocab_projector.weight"),
    ],
)
def test_tied_tensors_that_differ_are_refused(tmp_path, source, first, second):
    source = GOLDEN / source
    same = changed(source, tmp_path / "same", lambda tensors: tensors.update({second: tensors[first].copy()}))
    np.testing.assert_array_equal(ufbert.load(same)(IDS).logits, ufbert.load(source)(IDS).logits)
    half = {second: load_file(source / "model.safetensors")[first].astype(np.float16)}
    for name, other in {"half": half, "more": {second: load_file(source / "model.safetensors")[first] + 1}}.items():
        folder = changed(source, tmp_path / name, lambda tensors, other=other: tensors.update(other))
        with pytest.raises(CheckpointError, match=f"tensor {second}: expected the values of {first}, which it is tied"):
            ufbert.load(folder)
        assert ufbert.SentenceEncoder(with_tokenizer(folder), pooling="mean").encode("a").size


def with_tokenizer(folder):
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")
    return folder


def test_a_folder_without_architectures_is_what_its_task_needs(tmp_path):
    folder = write_classifier(tmp_path / "model", ["no", "yes"])
    expected = ufbert.TextClassifier(folder).logits(["the cat"])
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    np.testing.assert_array_equal(ufbert.TextClassifier(folder).logits(["the cat"]), expected)
    with pytest.raises(CheckpointError, match=r"tensor qa_outputs.weight: expected it from config.json"):
        ufbert.QuestionAnswerer(folder)
    assert ufbert.load(folder).config.task == "base"


def test_an_adapter_beside_the_weights_is_named(tmp_path):
    folder = write_bert(tmp_path / "model")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"adapter_config.json: expected a model without an adapter"):
        ufbert.load(folder)


@pytest.mark.parametrize("with_base", [False, True])
def test_the_hubs_cache_is_not_taken_for_a_model(tmp_path, with_base):
    root = tmp_path / "models--org--name"
    write_bert(root / "snapshots" / "0123abcd")
    if with_base:
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("0123abcd")
    for load in (ufbert.load, ufbert.SentenceEncoder, ufbert.TextClassifier):
        with pytest.raises(CheckpointError, match=r"models--org--name: expected .* snapshots/0123abcd"):
            load(root)
    assert ufbert.load(root / "snapshots" / "0123abcd").config.hidden_size == BERT_CONFIG["hidden_size"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_distilbert_is_converted_and_scored(tmp_path, dtype):
    source = GOLDEN / "pipelines" / "text-classification-distilbert"
    folder = ufbert.convert(source, tmp_path / "model", "float32")
    texts = ["The soup was too salty.", ("Who wrote the letter?", "Elizabeth Brown")]
    first, second = (ufbert.TextClassifier(path, dtype=dtype).logits(texts) for path in (source, folder))
    np.testing.assert_array_equal(first, second)
    assert find_classifiers(folder, ["MNLI"]) == {"MNLI": folder}


def test_distilbert_has_no_token_types():
    model = ufbert.load(DISTILBERT / "base")
    types = np.ones((1, 5), np.int64)
    np.testing.assert_array_equal(model(IDS, None, types).last_hidden_state, model(IDS).last_hidden_state)
