"""sentence-transformers' own configurations: what is honoured is in the golden folders, the rest is refused by name."""

import json

import numpy as np
import pytest
from conftest import write_sentence_model

import ufbert
from ufbert import CheckpointError

NAMES = "sentence_bert_config.json", "sentence_xlm-roberta_config.json"
FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "settings",
    [
        {"transformer_task": "fill-mask"},
        {"module_output_name": "sentence_embedding"},
        {"modality_config": {"text": {**FORWARD, "method_output_name": "pooler_output"}}},
        {"modality_config": {"text": FORWARD, "image": FORWARD}},
        {"processing_kwargs": {"text": {"max_length": 5}}},
        {"config_args": {"num_hidden_layers": 1}},
        {"config_kwargs": {"hidden_act": "relu"}},
        {"model_args": {"subfolder": "other"}},
        {"tokenizer_args": {"do_lower_case": False}},
        {"processor_kwargs": {"model_max_length": 9}},
        {"query_length": 8},
        {"tokenizer_name_or_path": "other"},
        {"new_setting": True},
    ],
)
def test_settings_that_would_change_embeddings_are_refused_by_name(tmp_path, name, settings):
    folder = write_sentence_model(tmp_path / "model")
    (folder / name).write_text(json.dumps({"max_seq_length": 20, **settings}))
    (key,) = settings
    with pytest.raises(CheckpointError, match=f"{name}: {key}: expected"):
        ufbert.SentenceEncoder(folder)


@pytest.mark.parametrize("name", NAMES)
def test_settings_without_an_effect_are_taken(tmp_path, name):
    folder = write_sentence_model(tmp_path / "model")
    expected = ufbert.SentenceEncoder(folder).encode("the cat")
    settings = {
        "max_seq_length": 20,
        "do_lower_case": False,
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "modality_config": {"text": FORWARD},
        "processing_kwargs": {"text": {}},
        "unpad_inputs": True,
        "query_length": None,
        "query_expansion": None,
        "model_args": {"add_pooling_layer": False, "torch_dtype": "float16", "trust_remote_code": True},
        "config_args": {},
        "tokenizer_args": {"use_fast": True},
    }
    (folder / name).write_text(json.dumps(settings))
    encoder = ufbert.SentenceEncoder(folder)
    np.testing.assert_array_equal(encoder.encode("the cat"), expected)
    assert encoder.max_seq_length == 20
    converted = ufbert.SentenceEncoder(ufbert.convert(folder, tmp_path / "converted"))
    assert converted.max_seq_length == 20


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder", 5])
def test_folders_of_other_kinds_are_refused_by_name(tmp_path, kind):
    folder = write_sentence_model(tmp_path / "model")
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(CheckpointError, match=f"model_type: expected SentenceTransformer, .* found '?{kind}"):
        ufbert.SentenceEncoder(folder)


@pytest.mark.parametrize("kind", ["Normalize", "Dense"])
@pytest.mark.parametrize("key", ["module_input_name", "module_output_name"])
def test_modules_of_other_names_are_refused(tmp_path, kind, key):
    folder = write_sentence_model(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "2_Last", "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Last").mkdir()
    (folder / "2_Last" / "config.json").write_text(json.dumps({key: "token_embeddings"}))
    with pytest.raises(CheckpointError, match=f"2_Last/config.json: {key}: expected 'sentence_embedding'"):
        ufbert.SentenceEncoder(folder)


@pytest.mark.parametrize("path", ["custom.activations.ReLU", "ReLU", "torch.nn.modules.activation.Softmax"])
def test_activations_that_are_not_torchs_are_refused(tmp_path, path):
    folder = write_sentence_model(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "2_Dense").mkdir()
    settings = {"in_features": 12, "out_features": 12, "activation_function": path}
    (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="activation_function: expected one of"):
        ufbert.SentenceEncoder(folder)
