"""What is packed and fused at which precision, and what says so."""

import ast
import hashlib
import inspect

import numpy as np
import pytest
from conftest import GOLDEN, write_bert, write_fff

import ufbert
from ufbert import InputError, dense
from ufbert.checkpoint import build
from ufbert.checkpoint.build import build_model
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.pack import pack

IDS = np.array([[2, 5, 6, 7, 8, 3], [2, 30, 31, 32, 33, 3]])
compiled = pytest.mark.skipif(not dense.is_available(), reason="built without kernels")


@compiled
@pytest.mark.parametrize("dtype", dense.DTYPES)
@pytest.mark.parametrize("write", [write_bert, write_fff], ids=["dense", "trees"])
def test_all_layers_are_packed_and_fused(tmp_path, write, dtype):
    model = ufbert.load(write(tmp_path / "model"), dtype)
    facts = ufbert.info(model)
    assert (facts["encoder_layers"], facts["fused_layers"], facts["not_fused"]) == (2, 2, [])
    assert (
        facts["id"] == model.id == hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    )
    parts = f"Linear(12 -> 20, gelu, {dtype})" if write is write_bert else f"PackedFFF(2x3, 12 -> 12, {dtype}, gelu)"
    shown = repr(model.encoder)
    assert shown.count("fused)") == 2 and shown.count(parts) == 2 and f"Linear(12 -> 36, {dtype})" in shown


@pytest.mark.parametrize("write", [write_bert, write_fff], ids=["dense", "trees"])
def test_a_plain_model_computes_the_same_in_numpy(tmp_path, write):
    folder = write(tmp_path / "model")
    plain, packed = build_model(ModelFolder(folder)), ufbert.load(folder)
    assert ufbert.info(plain)["not_fused"] == ["plain arrays"] and "plain" in repr(plain.encoder)
    expected = plain(IDS).last_hidden_state
    np.testing.assert_allclose(packed(IDS).last_hidden_state, expected, atol=1e-5)


@compiled
@pytest.mark.parametrize(
    ("folder", "changes", "reason"),
    [
        (None, {"hidden_act": "gelu_new"}, "gelu_tanh has no kernel"),
        (None, {"intermediate_size": 0, "model_type": "ufbert", "feed_forward": "dense"}, "no neurons"),
        ("crammed/rmsnorm-1x3", {}, "rms_norm has no kernel"),
    ],
)
def test_what_the_kernels_cannot_do_runs_in_parts_and_says_why(tmp_path, folder, changes, reason):
    from conftest import BERT_CONFIG, bert_tensors

    path = GOLDEN / folder if folder else write_bert(tmp_path, bert_tensors(BERT_CONFIG | changes), **changes)
    model = ufbert.load(path)
    assert ufbert.info(model)["not_fused"] == [reason]
    assert f"in parts: {reason}" in repr(model.encoder.layers[0])


def test_what_is_packed_stays_as_it_is(tmp_path):
    layer = ufbert.load(write_bert(tmp_path)).encoder.layers[0]
    linear = layer.attention.query_key_value
    assert pack(linear, "float32") is linear


def test_unknown_precisions_are_refused(tmp_path):
    with pytest.raises(InputError, match="dtype: expected one of float32, bfloat16, int8, auto, got 'int4'"):
        ufbert.load(write_bert(tmp_path), "int4")


@compiled
def test_a_layer_that_is_not_packed_cannot_be_fused():
    linear = dense.Linear(np.ones((4, 4)))
    norm = (np.ones(4, np.float32), np.zeros(4, np.float32), 1e-5)
    options = {"norm1": norm, "norm2": norm, "num_heads": 1, "scale": 1.0, "norm_position": "post"}
    with pytest.raises(InputError, match=r"expected packed parts .*, got Linear\(4 -> 4, plain\)"):
        dense.FusedLayer(linear, linear, (linear, linear), **options)
    unknown = dense.Linear(np.ones((4, 4)), None, "mish", "float32")
    packed = linear.pack("float32")
    with pytest.raises(InputError, match=r"got Linear\(4 -> 4, mish, float32\)"):
        dense.FusedLayer(packed, packed, (unknown, packed), **options)
    with pytest.raises(InputError, match="expected an output projection"):
        dense.FusedLayer(packed, None, (packed, packed), **options)
    with pytest.raises(InputError, match="norm1: expected a layer norm in a layer with norm_position post, got None"):
        dense.FusedLayer(packed, packed, (packed, packed), **options | {"norm1": None})


TEXTS = ["The train to London leaves at nine.", "water", "", "Snow, snow, snow!", "What is it? " * 9] * 7


@compiled
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", ["text-classification", "text-classification-distilbert"])
def test_logits_of_a_text_are_the_same_bits_in_any_batch(name, dtype):
    classifier = ufbert.TextClassifier(GOLDEN / "pipelines" / name, dtype=dtype)
    alone = np.concatenate([classifier.logits([text]) for text in TEXTS])
    np.testing.assert_array_equal(classifier.logits(TEXTS), alone)


@compiled
@pytest.mark.parametrize("name", ["dense-twice", "dense-residual", "dense-normalize", "distilbert"])
def test_embeddings_behind_dense_modules_are_the_same_bits_in_any_batch(name):
    encoder = ufbert.SentenceEncoder(GOLDEN / "sentence-transformers" / name)
    alone = np.stack([encoder.encode(text) for text in TEXTS])
    np.testing.assert_array_equal(encoder.encode(TEXTS), alone)


def test_what_reads_models_imports_no_kernels():
    tree = ast.parse(inspect.getsource(build))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    names = {node.module for node in found} | {alias.name for node in found for alias in node.names}
    assert "layers" in names and not names & {"cmm", "dense", "isa", "leaf", "threads", "pack"}
