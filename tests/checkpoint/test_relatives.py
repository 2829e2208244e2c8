"""BERT's relatives: what every architecture with dense layers must do, on its golden models."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import GOLDEN
from safetensors.numpy import load_file

import ufbert
from ufbert import CheckpointError, dense
from ufbert.batch import Batch
from ufbert.checkpoint.build import distance_buckets
from ufbert.checkpoint.families import family_of, parse_config

NAMES = [
    "bert", "camembert/base", "crammedbert-glu", "distilbert/base", "electra/base", "modernbert/holes",
    "modernbert/long", "mpnet/base", "nomic-bert/base", "nomic-bert/holes", "roberta/base", "xlm-roberta/base",
]  # fmt: skip
HEADS = [
    path.parent
    for name in ("camembert", "electra", "modernbert", "mpnet", "nomic-bert", "roberta", "xlm-roberta")
    for path in sorted((GOLDEN / name).glob("*/config.json"))
]
compiled = pytest.mark.skipif(not dense.is_available(), reason="needs the compiled kernels")


def arguments(folder):
    expected = load_file(folder / "expected.safetensors")
    mask = np.ones_like(expected["input_ids"])
    return expected["input_ids"] % 30 + 5, mask


@compiled
@pytest.mark.parametrize("dtype", dense.DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_layers_are_fused_and_give_the_bits_of_their_parts(name, dtype):
    model = ufbert.load(GOLDEN / name, dtype)
    assert ufbert.info(model)["not_fused"] == []
    layers = tuple(replace(layer, fused=None) for layer in model.encoder.layers)
    in_parts = replace(model, encoder=replace(model.encoder, layers=layers))
    ids, mask = arguments(GOLDEN / name)
    np.testing.assert_array_equal(in_parts(ids, mask).last_hidden_state, model(ids, mask).last_hidden_state)


@compiled
@pytest.mark.parametrize("dtype", dense.DTYPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("texts", [2, 30])  # of ten tokens: threads share out columns, or texts
def test_threads_change_no_bits(name, dtype, texts):
    layer = ufbert.load(GOLDEN / name, dtype).encoder.layers[0]
    x = np.random.default_rng(0).standard_normal((10 * texts, layer.norm2.weight.shape[0])).astype(np.float32)
    batch = Batch.from_sequences([[5] * 10] * texts, [[0] * 10] * texts)
    whole = layer.in_parts(x, batch)
    for num_threads in (1, 2, 3):
        np.testing.assert_array_equal(layer.fused(x, batch, num_threads=num_threads), whole)


@compiled
@pytest.mark.parametrize("dtype", dense.DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_a_text_has_the_same_bits_in_any_batch(name, dtype):
    model = ufbert.load(GOLDEN / name, dtype)
    ids, mask = arguments(GOLDEN / name)
    mask[1, 5:] = 0
    mask[-1, 2:] = 0
    whole = model(ids, mask).last_hidden_state
    for row in range(len(ids)):
        length = mask[row].sum()
        alone = model(ids[row : row + 1, :length]).last_hidden_state[0]
        np.testing.assert_array_equal(alone, whole[row, :length])


@compiled
@pytest.mark.parametrize(("dtype", "cosine"), [("bfloat16", 0.999), ("int8", 0.99)])
@pytest.mark.parametrize("folder", HEADS, ids=lambda folder: str(folder.relative_to(GOLDEN)))
def test_other_precisions_come_near(folder, dtype, cosine):
    ids, mask = arguments(folder)
    exact, found = (ufbert.load(folder, precision)(ids, mask) for precision in ("float32", dtype))
    for name in ("last_hidden_state", "logits"):
        one, two = getattr(exact, name), getattr(found, name)
        if one is not None:
            assert np.vdot(one, two) / np.linalg.norm(one) / np.linalg.norm(two) > cosine


@pytest.mark.parametrize("folder", HEADS, ids=lambda folder: str(folder.relative_to(GOLDEN)))
def test_what_is_written_is_read_again(folder):
    config = parse_config(json.loads((folder / "config.json").read_text()))
    write = family_of(config.family).write
    if write is not None:  # NomicBERT and ModernBERT are only read
        assert parse_config(json.loads(json.dumps(write(config)))) == config


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2", "xlm-roberta-xl", "megatron-bert"])
def test_other_architectures_are_refused_by_name(model_type):
    with pytest.raises(CheckpointError, match=f"model_type: expected one of bert, .*, found '{model_type}'"):
        parse_config({"model_type": model_type, "architectures": ["XModel"]})


def test_positions_behind_the_padding_id_must_be_in_the_table():
    with pytest.raises(CheckpointError, match="position of the first token: expected an integer from 0 to 1, found 4"):
        parse_config({"model_type": "roberta", "max_position_embeddings": 2, "pad_token_id": 3})


def test_distances_share_buckets_the_further_they_are():
    """As transformers computes them with torch."""
    near = distance_buckets(np.arange(-8, 9), 32)
    np.testing.assert_array_equal(near, [8, 7, 6, 5, 4, 3, 2, 1, 0, 17, 18, 19, 20, 21, 22, 23, 24])
    far = distance_buckets(np.array([-1000, -128, -127, -64, -32, -16, -15, 16, 31, 90, 1000]), 32)
    np.testing.assert_array_equal(far, [15, 15, 15, 14, 12, 10, 9, 26, 27, 30, 31])


NOMIC = {
    # as nomic-embed-text-v1.5 has it, but smaller
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "activation_function": "swiglu",
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "n_embd": 24,
    "n_head": 3,
    "n_inner": 28,
    "n_layer": 2,
    "n_positions": 8192,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 50,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_scaling_factor": None,
    "type_vocab_size": 2,
    "use_rms_norm": False,
    "vocab_size": 40,
}


def test_nomic_bert_in_its_authors_words():
    theirs = json.loads((GOLDEN / "nomic-bert" / "base" / "config.json").read_text())
    assert parse_config(NOMIC) == parse_config(theirs | {"max_position_embeddings": 2048})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation_function", "gelu"), ("prenorm", True), ("rotary_emb_fraction", 0.5), ("rotary_scaling_factor", 2),
        ("rotary_emb_base", 0), ("rotary_emb_base", "x"), ("causal", True), ("qkv_proj_bias", True),
    ],
)  # fmt: skip
def test_other_nomic_berts_are_refused(key, value):
    with pytest.raises(CheckpointError, match=f"{key}: expected"):
        parse_config(NOMIC | {key: value})


@pytest.mark.parametrize(("key", "value"), [("n_embd", "x"), ("n_inner", "x"), ("n_head", 0), ("n_positions", "x")])
def test_faulty_sizes_of_nomic_bert_are_refused(key, value):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        parse_config(NOMIC | {key: value})


MODERN = {
    # as ModernBERT-base has it, but smaller
    "model_type": "modernbert",
    "architectures": ["ModernBertForMaskedLM"],
    "deterministic_flash_attn": False,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "hidden_size": 24,
    "intermediate_size": 28,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "num_attention_heads": 3,
    "num_hidden_layers": 7,
    "pad_token_id": 3,
    "position_embedding_type": "absolute",
    "reference_compile": None,
    "repad_logits_with_grad": False,
    "vocab_size": 40,
}
FULL, NEAR = "full_attention", "sliding_attention"


def test_modernbert_in_words_of_transformers_4_and_5():
    config = parse_config(MODERN)
    assert config.windowed_layers == (False, True, True, False, True, True, False) and config.window == 64
    rotations = {kind: {"rope_type": "default", "rope_theta": base} for kind, base in ((FULL, 160000.0), (NEAR, 1e4))}
    old = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    new = {key: value for key, value in MODERN.items() if key not in old}
    kinds = [FULL, NEAR, NEAR, FULL, NEAR, NEAR, FULL]
    assert parse_config(new | {"layer_types": kinds, "rope_parameters": rotations}) == config
    assert parse_config(new) == config  # their defaults
    assert parse_config(MODERN | {"local_rope_theta": None}).window_rotary_base == 160000.0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_types", [FULL]), ("layer_types", ["chunked"] * 7), ("layer_types", 3), ("rope_scaling", {"factor": 2}),
        ("rope_parameters", {FULL: {"rope_type": "yarn"}}), ("mlp_bias", True), ("local_attention", 0),
        ("classifier_pooling", "max"), ("hidden_activation", "swiglu"), ("sparse_prediction", 1), ("norm_bias", "no"),
        ("global_attn_every_n_layers", 0), ("local_rope_theta", 1), ("global_rope_theta", "x"),
    ],
)  # fmt: skip
def test_other_modernberts_are_refused(key, value):
    with pytest.raises(CheckpointError, match=r"expected"):
        parse_config(MODERN | {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [("hidden_size", "x"), ("num_hidden_layers", 2.5), ("num_hidden_layers", 10**9), ("pad_token_id", 40)],
)
def test_faulty_sizes_of_modernbert_are_refused(key, value):
    with pytest.raises(CheckpointError, match=rf"config\.json: {key}"):
        parse_config(MODERN | {key: value})


def test_a_bucket_table_of_another_size_is_refused():
    with pytest.raises(CheckpointError, match="relative_attention_num_buckets: expected 32"):
        parse_config({"model_type": "mpnet", "relative_attention_num_buckets": 64})
