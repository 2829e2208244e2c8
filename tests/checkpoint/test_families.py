"""Architectures: names and configurations in both directions."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import BERT_CONFIG, FFF_CONFIG, GOLDEN, bert_tensors, fff_tensors, write_bert, write_fff
from safetensors.numpy import load_file, save_file

import ufbert
from ufbert import CheckpointError
from ufbert.checkpoint.families import MODULES, family_of, find_family, parse_config, rewritten

LABELS = {"0": "no", "1": "yes", "2": "perhaps"}


@pytest.mark.parametrize("name", sorted(set(MODULES.values())))
def test_no_two_keys_are_spelled_alike(name):
    stems = family_of(name).names(with_head=True).stems
    assert len(set(stems.values())) == len(stems)


@pytest.mark.parametrize(
    ("name", "with_head", "spelled"),
    [
        ("word_embeddings.weight", False, "embeddings.word_embeddings.weight"),
        ("layers.11.query.bias", True, "bert.encoder.layer.11.attention.self.query.bias"),
        ("layers.0.fff_out.weight", False, "encoder.layer.0.ffn.linear_out.weight"),
        ("pooler.weight", True, "bert.pooler.dense.weight"),
        ("classifier.weight", True, "classifier.weight"),
    ],
)
def test_parameters_are_spelled_as_in_a_checkpoint(name, with_head, spelled):
    assert family_of("ufbert").names(with_head).parameter(name) == spelled


@pytest.mark.parametrize("name", ["BertModel", "BertForSequenceClassification", "BertForMaskedLM"])
@pytest.mark.parametrize(
    "config",
    [BERT_CONFIG | {"hidden_act": "gelu_new"}, FFF_CONFIG | {"hidden_act": "silu"}, FFF_CONFIG | {"pruned": True}],
)
def test_what_is_written_is_read_again(config, name):
    changes = {"architectures": [name], "problem_type": "regression", "id2label": LABELS, "layer_norm_eps": 1e-7}
    first = parse_config(config | changes | {"tie_word_embeddings": False, "pad_token_id": 1})
    assert parse_config(json.loads(json.dumps(family_of(first.family).write(first)))) == first


def test_distilberts_settings_are_written_and_read_again():
    for name in ("base", "sinusoidal", "masked-lm-untied", "sequence-classification"):
        first = parse_config(json.loads((GOLDEN / "distilbert" / name / "config.json").read_text()))
        assert parse_config(family_of("distilbert").write(first)) == first


def test_a_rewritten_configuration_keeps_what_says_nothing_of_the_architecture():
    data = BERT_CONFIG | {"tokenizer_class": "XLMRobertaTokenizer", "_name_or_path": "x", "hidden_act": "gelu_python"}
    trees = {"family": "ufbert", "feed_forward": "fff", "num_trees": 2, "depth": 3, "intermediate_size": 1}
    config = replace(parse_config(data), type_vocab_size=0, **trees)
    found = rewritten(data, config)
    assert parse_config(found) == config
    assert found["tokenizer_class"] == "XLMRobertaTokenizer" and found["model_type"] == "ufbert"
    assert not {"intermediate_size", "_name_or_path"} & set(found)


def test_every_tensor_of_a_checkpoint_has_a_key():
    for family, tensors in (("bert", bert_tensors(BERT_CONFIG)), ("ufbert", fff_tensors(FFF_CONFIG))):
        stems = {re.escape(name).replace(r"\{layer\}", r"\d+") for name in family_of(family).encoder.values()}
        pattern = re.compile(f"({'|'.join(stems)})(\\.weight|\\.bias)?")
        assert all(pattern.fullmatch(name) for name in tensors)


@pytest.mark.parametrize("load", [ufbert.load, lambda folder: ufbert.SentenceEncoder(folder, pooling="mean")])
@pytest.mark.parametrize("architecture", ["JinaBertForMaskedLM", "BertForCL"])
def test_classes_of_others_are_refused_by_name(tmp_path, load, architecture):
    with pytest.raises(CheckpointError, match=f"architectures: expected one of BertModel, .* found '{architecture}'"):
        load(write_bert(tmp_path / "model", architectures=[architecture]))


def test_the_encoder_of_a_class_with_another_head_is_used(tmp_path):
    for name in ("BertForNextSentencePrediction", "BertForMultipleChoice"):
        folder = write_bert(tmp_path / name, architectures=[name])
        assert ufbert.SentenceEncoder(folder, pooling="mean").encode("the cat").shape == (12,)
        with pytest.raises(CheckpointError, match=f"architectures: expected one of BertModel, .* found '{name}'"):
            ufbert.load(folder)


@pytest.mark.parametrize("name", ["distilbert", "electra", "modernbert", "mpnet", "roberta", "xlm-roberta"])
def test_stanfords_colbert_is_the_encoder_of_any_architecture(tmp_path, name):
    config = json.loads((GOLDEN / name / "base" / "config.json").read_text())
    tensors = load_file(GOLDEN / name / "base" / "model.safetensors")
    prefix = find_family(config).prefix
    named = {prefix + key: value for key, value in tensors.items()}
    named["linear.weight"] = np.ones((5, config.get("hidden_size", config.get("dim"))), np.float32)
    save_file(named, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    found, wanted = ufbert.load(tmp_path), ufbert.load(GOLDEN / name / "base")
    ids = [[5, 6, 7, 8]]
    np.testing.assert_array_equal(found(ids).last_hidden_state, wanted(ids).last_hidden_state)


@pytest.mark.parametrize("value", [0, 1.5, True])
def test_labels_that_are_numbers_are_read_as_text(value):
    config = parse_config(BERT_CONFIG | {"id2label": {"0": value, "1": "b"}})
    assert config.id2label == {0: str(value), 1: "b"}


@pytest.mark.parametrize("name", ["loss_fct.weight", "loss.pos_weight", "criterion.weight", "class_weights"])
def test_what_a_loss_function_left_is_ignored(tmp_path, name):
    tensors = bert_tensors(BERT_CONFIG) | {name: np.ones(2, np.float32)}
    expected = ufbert.load(write_bert(tmp_path / "a"))([[2, 5, 3]]).last_hidden_state
    found = ufbert.load(write_bert(tmp_path / "b", tensors))([[2, 5, 3]]).last_hidden_state
    np.testing.assert_array_equal(found, expected)


def test_a_bert_of_the_own_format_with_dense_layers_is_a_bert(tmp_path):
    folder = write_bert(tmp_path / "model", model_type="ufbert", feed_forward="dense")
    expected = ufbert.load(write_bert(tmp_path / "bert"))([[2, 5, 3]]).last_hidden_state
    np.testing.assert_array_equal(ufbert.load(folder)([[2, 5, 3]]).last_hidden_state, expected)
    assert ufbert.load(write_fff(tmp_path / "fff")).config.family == "ufbert"


def test_golden_folders_are_of_a_family():
    for file in sorted(GOLDEN.rglob("config.json")):
        data = json.loads(file.read_text())
        if "architectures" in data and data["architectures"][0] not in family_of("bert").encoders:
            assert parse_config(data).family in MODULES.values()
