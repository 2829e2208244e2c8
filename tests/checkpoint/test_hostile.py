"""Faulty and hostile model folders: always one UfbertError that names the file or tensor, never anything else."""

import contextlib
import json
import os
import struct

import numpy as np
import pytest
from conftest import BERT_CONFIG, GOLDEN, VOCABULARY, bert_tensors, write_bert, write_sentence_model
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from lab import examples
from safetensors.numpy import load_file, save_file

import ufbert
from ufbert import CheckpointError, UfbertError
from ufbert.checkpoint import ModelFolder, load_model, load_tokenizer
from ufbert.checkpoint.tensors import write_tensors

TENSORS = bert_tensors(BERT_CONFIG)
QUERY = "encoder.layer.1.attention.self.query.weight"


def refused(folder, *messages, load=ufbert.load):
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    for message in messages:
        assert message in str(caught.value)


def encoder_only(folder):
    return load_model(ModelFolder(folder), encoder_only=True)


def weights(header, data=b""):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10**8) + b"{}",
        weights(b"not json"),
        weights(b"[]"),
        weights(b"\xff\xfe"),
        weights({"a": entry(offsets=(0, 400))}, b"\0" * 4),
        weights({"a": entry(offsets=(4, 0))}, b"\0" * 4),
        weights({"a": entry(offsets=(-4, 0))}, b"\0" * 4),
        weights({"a": entry(shape=(2,))}, b"\0" * 4),
        weights({"a": entry(shape=(-1,))}, b"\0" * 4),
        weights({"a": entry(shape=(2**62, 8))}, b"\0" * 4),
        weights({"a": entry(), "b": entry()}, b"\0" * 4),
        weights({"a": entry()}, b"\0" * 400),
        weights({"a": entry(dtype="X9")}, b"\0" * 4),
        weights({"a": {"dtype": "F32"}}, b"\0" * 4),
        weights({"a": "text"}, b"\0" * 4),
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n",
        b"PK\3\4" + b"\0" * 100,
        b"\x80\x02}q\0." * 20,
    ],
    ids=range(21),
)
def test_files_that_are_not_safetensors(bert_folder, content):
    (bert_folder / "model.safetensors").write_bytes(content)
    refused(bert_folder, "model.safetensors", "expected a whole safetensors file")


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_cut_anywhere_is_refused(bert_folder, data):
    whole = (GOLDEN / "bert" / "model.safetensors").read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    (bert_folder / "model.safetensors").write_bytes(whole[:cut])
    (bert_folder / "config.json").write_text((GOLDEN / "bert" / "config.json").read_text())
    refused(bert_folder, "model.safetensors")


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_of_the_header_never_crash(bert_folder, data):
    content = bytearray((bert_folder / "model.safetensors").read_bytes())
    length = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, length - 1))] = data.draw(st.integers(0, 255))
    (bert_folder / "flipped.safetensors").write_bytes(content)
    target = bert_folder / "model.safetensors"
    original = target.read_bytes()
    (bert_folder / "flipped.safetensors").replace(target)
    try:
        ufbert.load(bert_folder)([[1, 2]])
    except UfbertError:
        pass
    finally:
        target.write_bytes(original)


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({QUERY: None}, [QUERY, "expected it from config.json, it is missing"]),
        ({QUERY: np.zeros((12, 11), np.float32)}, [QUERY, "expected shape (12, 12)", "found (12, 11)"]),
        ({QUERY: np.zeros(144, np.float32)}, [QUERY, "found (144,)"]),
        ({"surprise": np.zeros(3, np.float32)}, ["surprise", "does not account for"]),
        ({"encoder.layer.2.output.dense.weight": np.zeros((12, 20), np.float32)}, ["does not account for"]),
    ],
)
def test_missing_extra_and_misshapen_tensors(tmp_path, change, messages):
    tensors = {name: array for name, array in (TENSORS | change).items() if array is not None}
    refused(write_bert(tmp_path / "model", tensors), "model.safetensors", *messages)


def test_more_layers_than_configured(tmp_path):
    folder = write_bert(tmp_path / "model", num_hidden_layers=1)
    refused(folder, "expected 1 layers from config.json", "found one more")


@pytest.mark.parametrize("dtype", ["I64", "U8", "BOOL"])
def test_weights_that_are_not_floating_point(bert_folder, dtype):
    kinds = {"I64": np.int64, "U8": np.uint8, "BOOL": np.bool_}
    arrays = {name: ("F32", array) for name, array in TENSORS.items()}
    arrays[QUERY] = (dtype, np.ones((12, 12), kinds[dtype]))
    write_tensors(bert_folder / "model.safetensors", arrays)
    refused(bert_folder, QUERY, f"found {dtype}")


def test_pickles_are_never_read(bert_folder):
    (bert_folder / "model.safetensors").rename(bert_folder / "pytorch_model.bin")
    refused(bert_folder, "pytorch_model.bin", "never read", "convert it")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "weight_map"),
        ({"weight_map": {}}, "weight_map"),
        ({"weight_map": ["a"]}, "weight_map"),
        ({"weight_map": {"a": "../model.safetensors"}}, "inside the model folder"),
        ({"weight_map": {"a": "/etc/passwd"}}, "inside the model folder"),
        ({"weight_map": {"a": 3}}, "inside the model folder"),
        ({"weight_map": {"a": "missing.safetensors"}}, "no such safetensors file"),
        ({"weight_map": {"a": "config.json"}}, "no such safetensors file"),
        ({"weight_map": {"a": []}}, "inside the model folder"),
        ({"weight_map": {"a": {}}}, "inside the model folder"),
        ({"weight_map": {"a": "x" * 300 + ".safetensors"}}, "no such safetensors file"),
        ({"weight_map": {"a": "\ud800.safetensors"}}, "surrogates not allowed"),
    ],
)
def test_index_files(bert_folder, index, message):
    (bert_folder / "model.safetensors").rename(bert_folder.parent / "model.safetensors")
    (bert_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(bert_folder, message)


def test_an_index_with_a_tensor_that_is_in_no_shard(bert_folder):
    (bert_folder / "model.safetensors").rename(bert_folder / "a.safetensors")
    weight_map = dict.fromkeys([*TENSORS, "nowhere"], "a.safetensors")
    (bert_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    refused(bert_folder, "a.safetensors: tensor 'nowhere'")


@pytest.mark.parametrize("name", ["pooler.dense.weight", "pooler.dense.bias", "cls.predictions.decoder.weight"])
def test_tensors_that_are_not_used_must_fit_too(tmp_path, name):
    tensors = TENSORS | {name: np.zeros((3, 12), np.float32)}
    refused(write_bert(tmp_path / "model", tensors), name, "found (3, 12)", load=encoder_only)


def test_values_beyond_float32(bert_folder):
    arrays = {name: ("F32", array) for name, array in TENSORS.items()}
    arrays[QUERY] = ("F64", np.full((12, 12), 1e300))
    write_tensors(bert_folder / "model.safetensors", arrays)
    refused(bert_folder, QUERY, "expected values up to 3.40282e+38 for float32, found 1e+300")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt", "modules.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "dangling link"])
def test_what_is_not_a_regular_file_is_never_opened(tmp_path, name, kind):
    file = write_sentence_model(tmp_path / "model") / name
    file.unlink()
    make = {"pipe": os.mkfifo, "device": lambda f: f.symlink_to("/dev/zero"), "folder": os.mkdir}
    make.get(kind, lambda f: f.symlink_to("nowhere"))(file)
    refused(file.parent, f"{name}: expected a re", load=ufbert.SentenceEncoder)  # "regular" or "readable file"


def test_settings_nested_too_deeply_to_print(bert_folder):
    for levels in [*range(700, 1_000, 20), 100_000]:
        (bert_folder / "config.json").write_text('{"hidden_size": ' + "[" * levels + "]" * levels + "}")
        refused(bert_folder, "config.json")


def test_one_tensor_in_two_shards(bert_folder):
    content = (bert_folder / "model.safetensors").read_bytes()
    (bert_folder / "model.safetensors").unlink()
    for name in ("a.safetensors", "b.safetensors"):
        (bert_folder / name).write_bytes(content)
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (bert_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(bert_folder, "expected one, found another")


@pytest.mark.parametrize("text", ["", "{", "[]", '"bert"', "null", "[" * 100_000, b"\xff\xfe{}", "{" + '"a":1,' * 3])
def test_config_that_is_not_a_json_object(bert_folder, text):
    (bert_folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(bert_folder, "config.json")


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_of_any_setting_is_understood_or_refused(bert_folder, data):
    others = ["hidden_act", "layer_norm_eps", "id2label", "problem_type", "num_labels"]
    key = data.draw(st.sampled_from([*BERT_CONFIG, *others]))
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    )
    (bert_folder / "config.json").write_text(json.dumps(BERT_CONFIG | {key: data.draw(values)}))
    with contextlib.suppress(UfbertError):
        ufbert.load(bert_folder)


@pytest.mark.parametrize("path", ["no/such/folder", "", "a\0b", 3, None, "x" * 300, "x/" * 3000, b"x", []])
@pytest.mark.parametrize("load", [ufbert.load, ufbert.FillMask])
def test_folders_that_are_none(path, load):
    refused(path, load=load)


def test_a_file_is_no_folder(bert_folder):
    refused(bert_folder / "config.json", "found a file")
    (bert_folder / "config.json").unlink()
    refused(bert_folder, "config.json", "expected a readable file")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "{}", "expected an array"),
        ("modules.json", "[]", "expected the modules"),
        ("modules.json", "[3]", "expected objects"),
        ("modules.json", '[{"type": "os.system", "path": "echo"}]', "expected the modules"),
        ("modules.json", '[{"type": "Transformer", "path": ".."}, {"type": "Pooling"}]', "inside the model"),
        ("modules.json", '[{"type": "Transformer", "path": "/"}, {"type": "Pooling"}]', "inside the model"),
        ("modules.json", '[{"type": "Transformer", "path": ""}, {"type": "Pooling", "path": "x"}]', "model folder"),
        ("modules.json", '[{"type": "Transformer", "path": []}, {"type": "Pooling"}]', "inside the model"),
        ("modules.json", f'[{{"type": "Transformer", "path": "{"x" * 300}"}}, {{"type": "Pooling"}}]', "model folder"),
        ("1_Pooling/config.json", '{"pooling_mode": [["mean"]]}', "expected a pooling mode"),
        ("1_Pooling/config.json", '{"pooling_mode": [{}]}', "expected a pooling mode"),
        ("1_Pooling/config.json", '{"pooling_mode_mean_tokens": "false"}', "true or false"),
        ("1_Pooling/config.json", '{"pooling_mode": "mean", "include_prompt": "false"}', "include_prompt"),
        ("1_Pooling/config.json", '{"pooling_mode": "mean", "word_embedding_dimension": 9}', "word_embedding_dim"),
        ("1_Pooling/config.json", '{"pooling_mode": "mean", "embedding_dimension": 9}', "embedding_dimension"),
        *[
            ("sentence_bert_config.json", json.dumps({"max_seq_length": value}), "max_seq_length: expected an integer")
            for value in (-1, 0, 2, 1.5, "128", True, [], float("nan"))
        ],
        *[
            ("tokenizer_config.json", json.dumps({"model_max_length": value}), "model_max_length: expected a number")
            for value in (-1, 0, 2, "128", True, [], float("nan"))
        ],
        ("sentence_bert_config.json", '{"do_lower_case": "false"}', "do_lower_case"),
        ("tokenizer_config.json", '{"do_lower_case": "false"}', "do_lower_case"),
        ("tokenizer_config.json", '{"tokenize_chinese_chars": 1}', "tokenize_chinese_chars"),
        ("tokenizer_config.json", '{"strip_accents": "x"}', "strip_accents"),
        ("tokenizer_config.json", '{"clean_up_tokenization_spaces": "x"}', "clean_up_tokenization_spaces"),
        ("vocab.txt", "\n".join([*VOCABULARY, "one", "more"]), f"found the id {len(VOCABULARY) + 1}"),
        ("1_Pooling/config.json", "{}", "expected a pooling mode"),
        ("1_Pooling/config.json", '{"pooling_mode": "attention"}', "expected a pooling mode"),
        ("1_Pooling/config.json", '{"pooling_mode": {"a": 1}}', "expected a pooling mode"),
        (
            "1_Pooling/config.json",
            '{"pooling_mode_lasttoken": "yes"}',
            "pooling_mode_lasttoken: expected true or false",
        ),
        ("sentence_bert_config.json", "[]", "expected an object"),
        ("tokenizer_config.json", "3", "expected an object"),
        ("tokenizer.json", "", "tokenizer.json"),
        ("tokenizer.json", '{"model": {"type": "Alien"}}', "tokenizer.json"),
        ("vocab.txt", "", "expected one token a line"),
        ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n", "without [SEP]"),
        ("config_sentence_transformers.json", '{"prompts": ["a"]}', "prompts"),
        ("config_sentence_transformers.json", '{"prompts": {"a": 3}}', "prompts"),
        ("config_sentence_transformers.json", '{"truncate_dim": "all"}', "truncate_dim"),
        ("config_sentence_transformers.json", '{"similarity_fn_name": "psychic"}', "similarity_fn_name"),
        ("config_sentence_transformers.json", '{"default_prompt_name": "query"}', "default_prompt_name"),
    ],
)
def test_files_of_sentence_transformers(tmp_path, name, content, message):
    folder = write_sentence_model(tmp_path / "model")
    (folder / name).write_text(content)
    refused(folder, message, load=ufbert.SentenceEncoder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"in_features": 11, "out_features": 4}, "in_features 12"),
        ({"in_features": 12, "out_features": "4"}, "out_features"),
        ({"in_features": 12, "out_features": 4, "activation_function": "builtins.eval"}, "activation_function"),
        ({"in_features": 12, "out_features": 4, "bias": True}, "linear.bias"),
        ({"in_features": 12, "out_features": 5, "bias": False}, "expected shape (5, 12)"),
        ({"in_features": 12, "out_features": 4, "bias": "false"}, "bias: expected true or false"),
        ({"in_features": 12, "out_features": 4, "bias": False}, "tensor extra"),
        ({"in_features": 12, "out_features": 4, "bias": False, "module_input_name": "x"}, "module_input_name"),
    ],
)
def test_dense_modules(tmp_path, config, message):
    folder = write_sentence_model(tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(
        json.dumps([*modules, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    )
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text(json.dumps(config))
    tensors = {name: ("F32", np.ones((4, 12), np.float32)) for name in ("linear.weight", "extra")}
    write_tensors(folder / "2_Dense" / "model.safetensors", tensors)
    refused(folder, message, load=ufbert.SentenceEncoder)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "?", "max_input_chars_per_word": 9}},
        {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}},
        {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": None}},
        {"model": {"type": "WordLevel", "vocab": {"[UNK]": 99}, "unk_token": "[UNK]"}},
        {"post_processor": {"single": [{"Sequence": {"id": "B", "type_id": 0}}]}},
        {"post_processor": {"single": [{"SpecialToken": {"id": "none", "type_id": 0}}]}},
        {"post_processor": {"pair": [{"SpecialToken": {"id": "none", "type_id": 0}}]}},
    ],
)
def test_tokenizers_that_fail_when_they_are_used(tmp_path, change):
    folder = write_sentence_model(tmp_path / "model")
    load_tokenizer(ModelFolder(folder), 32).backend.save(str(folder / "tokenizer.json"))
    content = json.loads((folder / "tokenizer.json").read_text())
    for part, values in change.items():
        content[part] = values if part == "model" else content[part] | values
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(folder, "tokenizer.json", load=ufbert.SentenceEncoder)


@pytest.mark.parametrize(
    ("part", "pieces", "message"),
    [
        ("single", [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "?", "type_id": 0}}], "found '?'"),
        ("pair", [{"Sequence": {"id": "A", "type_id": 0}}], "expected the texts A and B, found A"),
        ("single", [], "expected the texts A, found none"),
        ("single", [{"Sequence": {"id": "A", "type_id": 2**31}}], "a type_id of at most 2147483647, found 2147483648"),
        ("special_tokens", {"[SEP]": {"id": "[SEP]", "ids": [3], "tokens": []}}, "ids as tokens, found 1 and 0"),
        ("special_tokens", {"[SEP]": {"id": "[SEP]", "ids": [3, 3], "tokens": ["[SEP]"]}}, "found 2 and 1"),
        ("special_tokens", {"[SEP]": {"id": "[SEP]", "ids": [2**31], "tokens": ["[SEP]"]}}, "found 2147483648"),
    ],
)
def test_templates_are_checked_before_the_library_panics(tmp_path, capfd, part, pieces, message):
    folder = write_sentence_model(tmp_path / "model")
    load_tokenizer(ModelFolder(folder), 32).backend.save(str(folder / "tokenizer.json"))
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"][part] = pieces
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(folder, "tokenizer.json", message, load=ufbert.SentenceEncoder)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "name", ["config.json", "modules.json", "tokenizer_config.json", "config_sentence_transformers.json"]
)
def test_half_a_surrogate_pair_in_settings(tmp_path, name):
    folder = write_sentence_model(tmp_path / "model")
    content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    if isinstance(content, list):
        content[0]["added"] = "\ud83d\ude00 \ud800"
    else:
        content["added"] = {"\udfff": 0}
    (folder / name).write_text(json.dumps(content))
    refused(folder, f"{name}: expected JSON", "surrogates not allowed", load=ufbert.SentenceEncoder)
    (folder / name).write_text(json.dumps(content).replace("\\ud800", "").replace("\\udfff", "more"))
    ufbert.SentenceEncoder(folder)


@pytest.mark.parametrize("factor", [-1.0, np.nan, np.inf])
def test_factors_of_rows_in_8_bits(tmp_path, factor):
    folder = ufbert.convert(write_bert(tmp_path / "source"), tmp_path / "target", "int8")
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{QUERY}.scale"] = tensors[f"{QUERY}.scale"] * np.float32(factor)
    save_file(tensors, folder / "model.safetensors")
    refused(folder, f"{QUERY}.scale", "expected factors from 0 on")


def test_no_tokenizer(tmp_path):
    folder = write_sentence_model(tmp_path / "model")
    (folder / "vocab.txt").unlink()
    refused(folder, "expected tokenizer.json or vocab.txt", load=ufbert.SentenceEncoder)
