"""config.json: what is understood, and that everything else is refused by its name."""

import copy
import json

import pytest
from conftest import BERT_CONFIG, FFF_CONFIG, GOLDEN, VOCABULARY

from ufbert.checkpoint.families import parse_config
from ufbert.errors import CheckpointError

CRAMMED = json.loads((GOLDEN / "ultrafastbert-3x2" / "config.json").read_text())
DENSE = json.loads((GOLDEN / "crammedbert-glu" / "config.json").read_text())


def changed(config, path, value):
    """A copy with the value at a dotted path replaced."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


def test_bert_in_our_words():
    config = parse_config(BERT_CONFIG)
    assert (config.family, config.task, config.head_size) == ("bert", "base", 4)
    assert config.norm_position == "post" and not config.final_norm and config.num_labels == 2


def test_ultrafastbert_in_our_words():
    config = parse_config(CRAMMED)
    assert (config.family, config.task, config.feed_forward) == ("crammed", "masked-lm", "fff")
    assert (config.num_trees, config.depth, config.num_nodes) == (3, 2, 7)
    assert config.norm_position == "pre" and config.final_norm and not config.qkv_bias


def test_fff_layers_in_our_words():
    config = parse_config(FFF_CONFIG)
    assert (config.family, config.task, config.feed_forward, config.hidden_act) == ("ufbert", "base", "fff", "gelu")
    assert (config.num_trees, config.depth, config.num_nodes, config.output_bias) == (2, 3, 15, True)
    assert not parse_config({key: value for key, value in FFF_CONFIG.items() if key != "output_bias"}).output_bias
    dense = parse_config(BERT_CONFIG | {"model_type": "ufbert", "feed_forward": "dense"})
    assert dense == parse_config(BERT_CONFIG)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        *[("feed_forward", value, "feed_forward: expected one of fff, dense") for value in (None, "gated", 1, ["fff"])],
        *[("num_trees", value, "num_trees: expected an integer from 1") for value in (None, 0, -1, 2.0, "2", 10**9)],
        *[("depth", value, "depth: expected an integer from 0 to 24") for value in (None, -1, 25, 10**400, True, [3])],
        *[("output_bias", value, "output_bias: expected true or false") for value in (1, "true", [])],
        *[("hidden_act", value, "hidden_act: expected one of gelu") for value in ("gelu_new", "mish", "linear", 3)],
        ("num_trees", 2**22, "num_trees \\* nodes of a tree"),
        ("hidden_size", 0, "hidden_size"),
        ("architectures", ["ScriptableLM"], "architectures"),
        ("position_embedding_type", "relative_key", "position_embedding_type"),
        ("model_type", "Ufbert", "model_type"),
    ],
)
def test_fff_refusals(key, value, message):
    with pytest.raises(CheckpointError, match=message):
        parse_config(FFF_CONFIG | {key: value})


def test_no_feed_forward_neurons():
    assert parse_config(BERT_CONFIG | {"intermediate_size": 0}).intermediate_size == 0
    with pytest.raises(CheckpointError, match="intermediate_size: expected an integer from 0"):
        parse_config(BERT_CONFIG | {"intermediate_size": -1})
    with pytest.raises(CheckpointError, match="intermediate_size: expected an integer from 1"):
        parse_config(changed(DENSE, "arch.intermed_size", 0))


def test_labels_and_their_number():
    labels = {"1": "no", "0": "yes", "2": "maybe"}
    config = parse_config(BERT_CONFIG | {"architectures": ["BertForSequenceClassification"], "id2label": labels})
    assert config.num_labels == 3 and config.id2label[2] == "maybe"


def test_a_bert_config_without_model_type_or_architecture():
    assert parse_config({"architectures": ["BertModel"]}).hidden_size == 768
    assert parse_config({"model_type": "bert"}).task == "base"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "deberta-v2", "model_type: expected one of bert, .*, found 'deberta-v2'"),
        ("model_type", ["bert"], "model_type"),
        ("architectures", ["BertLMHeadModel"], "architectures: expected one of BertModel"),
        ("architectures", "BertModel", "architectures: expected a list"),
        ("position_embedding_type", "relative_key", "position_embedding_type"),
        ("is_decoder", True, "is_decoder"),
        ("add_cross_attention", True, "add_cross_attention"),
        ("hidden_act", "gelu_10", "hidden_act: expected one of gelu"),
        ("hidden_act", ["gelu"], "hidden_act"),
        ("hidden_size", 13, "hidden_size 13 is not divisible by num_attention_heads 3"),
        ("hidden_size", "12", "hidden_size: expected an integer"),
        ("hidden_size", 12.0, "hidden_size: expected an integer"),
        ("hidden_size", 10**400, "hidden_size: expected an integer"),
        ("hidden_size", -12, "hidden_size: expected an integer from 1"),
        ("num_attention_heads", 0, "num_attention_heads"),
        ("num_hidden_layers", 10**9, "num_hidden_layers: expected an integer from 1 to 1024"),
        ("vocab_size", True, "vocab_size"),
        ("max_position_embeddings", 2**60, "max_position_embeddings"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps"),
        ("layer_norm_eps", "tiny", "layer_norm_eps"),
        ("id2label", {"0": "a", "2": "b"}, "id2label"),
        ("id2label", ["a", "b"], "id2label"),
        ("num_labels", -1, "num_labels"),
        ("id2label", {"0": "a", "00": "b"}, "id2label"),
        ("id2label", {"0": None, "1": "b"}, "id2label"),
        ("problem_type", "x", "problem_type"),
        ("problem_type", [], "problem_type"),
        *[("pad_token_id", value, "pad_token_id") for value in (-1, 10**30, "x", [], 1.5, len(VOCABULARY))],
        ("tie_word_embeddings", "yes", "tie_word_embeddings"),
    ],
)
def test_bert_refusals(key, value, message):
    with pytest.raises(CheckpointError, match=message):
        parse_config(BERT_CONFIG | {key: value})


@pytest.mark.parametrize(
    ("config", "path", "value", "name"),
    [
        (CRAMMED, "arch", None, "arch"),
        (CRAMMED, "arch.attention.rotary_embedding", True, "rotary_embedding"),
        (CRAMMED, "arch.attention.rotary_embedding", "llama", "rotary_embedding"),
        (CRAMMED, "arch.attention.causal_attention", True, "causal_attention"),
        (CRAMMED, "arch.attention.type", "flash", "type"),
        (CRAMMED, "arch.attention.sequence_op", "cumsum", "sequence_op"),
        (CRAMMED, "arch.norm_scheme", "post", "norm_scheme"),
        (CRAMMED, "arch.norm", "BatchNorm1d", "norm"),
        (CRAMMED, "arch.ffn_layer_frequency", 2, "ffn_layer_frequency"),
        (CRAMMED, "arch.embedding.pos_embedding", "rotary", "pos_embedding"),
        (CRAMMED, "arch.embedding.embedding_dim", 16, "embedding_dim"),
        (CRAMMED, "arch.embedding.max_seq_length", 2**40, "max_position_embeddings"),
        (CRAMMED, "arch.intermed_type", "moe", "intermed_type"),
        (CRAMMED, "arch.intermed_depth", 10**9, "depth"),
        (CRAMMED, "arch.intermed_depth", None, "depth"),
        (CRAMMED, "arch.intermed_size", 2**22, "num_trees"),
        (CRAMMED, "arch.nonlin", "GELUglu", "nonlin"),
        (CRAMMED, "arch.nonlin", "Mish", "nonlin"),
        (CRAMMED, "arch.classification_head.pooler", "attention", "pooler"),
        (CRAMMED, "arch.classification_head.nonlin", "Swish", "nonlin"),
        (CRAMMED, "arch.hidden_size", None, "hidden_size"),
        (CRAMMED, "architectures", ["ScriptableLMForSCRIPTTraining"], "ScriptableLMForSCRIPTTraining"),
        (DENSE, "arch.intermed_size", 63, "intermed_size"),
    ],
)
def test_crammed_refusals(config, path, value, name):
    with pytest.raises(CheckpointError, match=name):
        parse_config(changed(config, path, value))


def test_a_sinusoidal_table_too_large_is_refused_before_it_is_made():
    config = changed(CRAMMED, "arch.embedding.max_seq_length", 2**20)
    with pytest.raises(CheckpointError, match="max_position_embeddings \\* hidden_size"):
        parse_config(changed(changed(config, "arch.hidden_size", 32_768), "arch.embedding.embedding_dim", 32_768))
