"""Models whose weights have 8 bits on disk: what is stored, what is computed, what is refused."""

import json
import shutil

import numpy as np
import pytest
from conftest import GOLDEN, write_bert, write_fff, write_sentence_model
from safetensors.numpy import load_file

import ufbert
from ufbert import CheckpointError, dense
from ufbert.checkpoint.build import build_model
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.tensors import write_tensors
from ufbert.int8 import Int8Matrix
from ufbert.routes import prune

IDS = np.array([[2, 5, 6, 7, 8, 3], [2, 30, 31, 32, 33, 3]])
WORDS, QUERY = "embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"
POSITIONS, TREES = "embeddings.position_embeddings.weight", "encoder.layer.0.ffn.linear_out.weight"
CODES = {"float32": "F32", "float16": "F16", "int8": "I8"}


def widened(folder, target):
    """The same weights as a float32 folder: what a model in 8 bits must compute with."""
    return ufbert.convert(folder, target, "float32")


def test_matrices_have_8_bits_and_all_else_is_float32(tmp_path):
    source = write_fff(tmp_path / "source")
    target = ufbert.convert(source, tmp_path / "target", "int8")
    before, after = load_file(source / "model.safetensors"), load_file(target / "model.safetensors")
    for name, array in before.items():
        if array.ndim == 1:
            assert after.pop(name).dtype == np.float32
        else:
            values, scale = after.pop(name), after.pop(name + ".scale").astype(np.float32)
            assert (values.dtype, scale.shape) == (np.int8, array.shape[:1])
            columns = np.ones(array.shape[1], np.float32)
            if name == POSITIONS or name.endswith("linear_out.weight"):
                columns = after.pop(name + ".columns").astype(np.float32)
            factors = scale[:, None] * columns
            assert (np.abs(values * factors - array) <= 0.501 * factors).all()
    assert not after


def test_large_outputs_do_not_cost_the_others_their_digits(tmp_path):
    source = write_fff(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors[TREES][3] *= 1_000  # one output, of all nodes
    tensors[POSITIONS][:, 5] *= 1_000
    write_tensors(source / "model.safetensors", {name: ("F32", array) for name, array in tensors.items()})
    stored = load_file(
        widened(ufbert.convert(source, tmp_path / "int8", "int8"), tmp_path / "f4") / "model.safetensors"
    )
    for name in (TREES, POSITIONS):
        lost = np.abs(stored[name] - tensors[name])
        assert (lost <= np.abs(tensors[name]).max(1 if name == TREES else 0, keepdims=True) / 50).all()


def test_factors_beyond_float16_are_float32(tmp_path):
    source = write_bert(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors[WORDS] *= 1e-6
    write_tensors(source / "model.safetensors", {name: ("F32", array) for name, array in tensors.items()})
    stored = load_file(ufbert.convert(source, tmp_path / "target", "int8") / "model.safetensors")
    assert stored[WORDS + ".scale"].dtype == np.float32
    assert stored[QUERY + ".scale"].dtype == np.float16
    lost = np.abs(stored[WORDS] * stored[WORDS + ".scale"][:, None] - tensors[WORDS])
    assert (lost <= 0.501 * stored[WORDS + ".scale"][:, None]).all()


def test_files_without_factors_of_columns_are_read_as_before(tmp_path):
    """Of trees, what this package wrote before it had them: one factor an output."""
    target = ufbert.convert(write_fff(tmp_path / "source"), tmp_path / "target", "int8")
    same = widened(target, tmp_path / "same")
    tensors = load_file(same / "model.safetensors")
    scale = (np.abs(tensors[TREES]).max(axis=1) / 127).astype("f4")
    old = {name: ("F32", array) for name, array in tensors.items()}
    old |= {TREES: ("I8", np.rint(tensors[TREES] / scale[:, None]).astype("i1")), TREES + ".scale": ("F32", scale)}
    write_tensors(target / "model.safetensors", old)
    tensors[TREES] = old[TREES][1] * scale[:, None]
    write_tensors(same / "model.safetensors", {name: ("F32", array) for name, array in tensors.items()})
    expected, found = (ufbert.load(folder)(IDS).last_hidden_state for folder in (same, target))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", dense.DTYPES)
@pytest.mark.parametrize("write", [write_bert, write_fff], ids=["dense", "trees"])
def test_it_computes_with_the_weights_that_are_stored(tmp_path, write, dtype):
    target = ufbert.convert(write(tmp_path / "source"), tmp_path / "target", "int8")
    same = widened(target, tmp_path / "same")
    expected, found = ufbert.load(same, dtype), ufbert.load(target, dtype)
    if write is write_fff and dtype == "int8":  # floats would be rounded once more: compare the trees in float32
        x = np.random.default_rng(0).standard_normal((40, 12)).astype("f4")
        expected = ufbert.load(same)
        expected, found = (model.encoder.layers[1].feed_forward.trees(x) for model in (expected, found))
    else:
        expected, found = (model(IDS).last_hidden_state for model in (expected, found))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    plain = build_model(ModelFolder(target))(IDS).last_hidden_state
    np.testing.assert_allclose(plain, ufbert.load(same)(IDS).last_hidden_state, atol=1e-5)


def test_word_embeddings_stay_as_they_are_stored(tmp_path):
    target = ufbert.convert(write_bert(tmp_path / "source"), tmp_path / "target", "int8")
    word = ufbert.load(target, "int8").encoder.embeddings.word
    assert isinstance(word, Int8Matrix) and not word.values.flags.owndata


@pytest.mark.parametrize(
    "name",
    [
        "bert-mlm",
        "bert-sequence-classifier",
        "crammed/ff-siluglu-qkv-bias",
        "ultrafastbert-2x3-classifier-avg",
        "distilbert/masked-lm",
    ],
)
def test_heads_and_other_architectures(tmp_path, name):
    source = GOLDEN / name
    target = ufbert.convert(source, tmp_path / "target", "int8")
    ids = np.array([[2, 5, 6, 7, 3]])
    expected, found = ufbert.load(source)(ids), ufbert.load(target)(ids)
    np.testing.assert_allclose(found.last_hidden_state, expected.last_hidden_state, atol=0.2)
    if expected.logits is not None:
        np.testing.assert_allclose(found.logits, expected.logits, atol=0.2 * np.abs(expected.logits).max())


@pytest.mark.parametrize(
    ("write", "model_type"), [(write_bert, "ufbert-bert"), (write_fff, "ufbert")], ids=["dense", "trees"]
)
def test_no_other_program_takes_the_numbers_for_floats(tmp_path, write, model_type):
    source = write(tmp_path / "source")
    target = ufbert.convert(source, tmp_path / "target", "int8")
    again = ufbert.convert(target, tmp_path / "again", "int8")
    for folder in (target, again):
        assert json.loads((folder / "config.json").read_text())["model_type"] == model_type
    assert (again / "model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()
    back = ufbert.convert(target, tmp_path / "back", "float16")
    before = json.loads((source / "config.json").read_text())
    assert json.loads((back / "config.json").read_text()) == before


def test_sentence_folders(tmp_path):
    source = write_sentence_model(tmp_path / "source")
    target = ufbert.convert(source, tmp_path / "target", "int8")
    expected, found = (ufbert.SentenceEncoder(folder).encode("a cat") for folder in (source, target))
    assert expected @ found / np.linalg.norm(expected) / np.linalg.norm(found) > 0.99


def test_a_classifier_that_shares_an_encoder_in_8_bits(tmp_path):
    ufbert.convert(write_bert(tmp_path / "source"), tmp_path / "base", "int8")
    folder = tmp_path / "classifier"
    shutil.copytree(tmp_path / "base", folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["BertForTokenClassification"], "ufbert_base_model": "base"}
    (folder / "config.json").write_text(json.dumps(config))
    head = {"classifier.weight": np.ones((2, 12), "f4"), "classifier.bias": np.zeros(2, "f4")}
    write_tensors(folder / "model.safetensors", {name: ("F32", array) for name, array in head.items()})
    model = ufbert.load(folder)
    expected = ufbert.load(tmp_path / "base")(IDS).last_hidden_state
    np.testing.assert_array_equal(model(IDS).last_hidden_state, expected)
    assert model(IDS).logits.shape == (2, 6, 2)


def test_trees_in_8_bits_are_pruned(tmp_path):
    target = ufbert.convert(write_fff(tmp_path / "source"), tmp_path / "target", "int8")
    prune(target, ["a cat", "the cat , a b c"], tmp_path / "pruned")  # which compares the two models' bits
    stored = load_file(tmp_path / "pruned" / "model.safetensors")
    nodes = len(stored["encoder.layer.0.ffn.nodes"])
    assert nodes < 30
    stem = "encoder.layer.0.ffn."
    assert stored[stem + "linear_in.weight.scale"].shape == (nodes,)
    assert stored[stem + "linear_out.weight"].shape == (12, nodes)
    assert stored[stem + "linear_out.weight.scale"].shape == (12,)
    assert stored[stem + "linear_out.weight.columns"].shape == (nodes,)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, QUERY + ": expected dtype .*, or I8 with a tensor " + QUERY + ".scale, found I8"),
        (
            ("F32", np.ones(11, "f4")),
            r"query.weight.scale: expected F32 or F16 of shape \(12,\).*found F32 of shape \(11,\)",
        ),
        (("F32", np.ones((12, 1), "f4")), r"expected F32 or F16 of shape \(12,\).*found F32 of shape \(12, 1\)"),
        (("I32", np.ones(12, "i4")), r"expected F32 or F16 of shape \(12,\).*found I32"),
    ],
)
def test_faulty_factors_are_refused(tmp_path, scale, message):
    target = ufbert.convert(write_bert(tmp_path / "source"), tmp_path / "target", "int8")
    file = target / "model.safetensors"
    tensors = {name: (CODES[str(array.dtype)], array) for name, array in load_file(file).items()}
    del tensors[QUERY + ".scale"]
    write_tensors(file, tensors | ({} if scale is None else {QUERY + ".scale": scale}))
    with pytest.raises(CheckpointError, match=message):
        ufbert.load(target)


def test_factors_of_floats_are_unexpected_tensors(tmp_path):
    source = write_bert(tmp_path / "source")
    tensors = {name: ("F32", array) for name, array in load_file(source / "model.safetensors").items()}
    write_tensors(source / "model.safetensors", tensors | {QUERY + ".scale": ("F32", np.ones(12, "f4"))})
    with pytest.raises(
        CheckpointError, match=r"query.weight.scale: found 1 tensor.* that config.json does not account"
    ):
        ufbert.load(source)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_has_no_8_bits_is_refused(tmp_path, value):
    source = write_bert(tmp_path / "source")
    tensors = load_file(source / "model.safetensors")
    tensors[WORDS][3, 4] = value
    write_tensors(source / "model.safetensors", {name: ("F32", array) for name, array in tensors.items()})
    with pytest.raises(CheckpointError, match=WORDS + ": expected finite values, found NaN"):
        ufbert.convert(source, tmp_path / "target", "int8")
    assert not (tmp_path / "target").exists()
