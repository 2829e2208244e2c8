"""What a folder says of its modules, and copies with other weights."""

import json
import os

import numpy as np
import pytest
from conftest import GOLDEN, add_mean_pooling, write_bert, write_sentence_model
from safetensors.numpy import load_file

import ufbert
from ufbert import CheckpointError
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.tensors import Tensors, write_tensors

SUBFOLDER = GOLDEN / "sentence-transformers" / "subfolder-0-transformer"


def without_modules(folder):
    """A sentence-transformers folder that only ``1_Pooling`` shows to be one."""
    write_sentence_model(folder)
    (folder / "modules.json").unlink()
    return folder


def test_modules_of_every_kind_of_folder(tmp_path):
    assert ModelFolder(write_bert(tmp_path / "a")).modules() == [("Transformer", "")]
    assert ModelFolder(tmp_path / "a").pooling() is None
    assert ModelFolder(write_sentence_model(tmp_path / "b")).modules() == [
        ("Transformer", ""),
        ("Pooling", "1_Pooling"),
    ]
    assert ModelFolder(without_modules(tmp_path / "c")).modules() == ModelFolder(tmp_path / "b").modules()
    folder = ModelFolder(SUBFOLDER)
    assert folder.transformer().path == SUBFOLDER / "0_Transformer"
    assert folder.pooling().path == SUBFOLDER / "1_Pooling"


def test_a_transformer_in_a_subfolder_is_loaded():
    found, expected = (ufbert.load(path)([[2, 5, 3]]) for path in (SUBFOLDER, SUBFOLDER / "0_Transformer"))
    np.testing.assert_array_equal(found.last_hidden_state, expected.last_hidden_state)


@pytest.mark.parametrize("kind", ["custom_st.Transformer", "custom.module.Pooling", "sentence_transformers_x.Pooling"])
def test_classes_that_are_not_sentence_transformers_own_are_refused_by_name(tmp_path, kind):
    folder, position = write_sentence_model(tmp_path / "model"), kind.endswith("Pooling")
    modules = json.loads((folder / "modules.json").read_text())
    modules[position]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=f"modules.json: expected .* found .*{kind}"):
        ufbert.SentenceEncoder(folder)


def test_a_copy_has_all_modules_and_the_weights_given(tmp_path):
    source = add_mean_pooling(write_bert(tmp_path / "source"))
    modules = json.loads((source / "modules.json").read_text())
    kinds = {"2_Dense": "Dense", "3_Normalize": "Normalize"}
    modules += [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (source / "modules.json").write_text(json.dumps(modules))
    (source / "2_Dense").mkdir()
    (source / "2_Dense" / "config.json").write_text('{"in_features": 12, "out_features": 4, "bias": false}')
    write_tensors(source / "2_Dense" / "model.safetensors", {"linear.weight": ("F32", np.eye(4, 12, dtype=np.float32))})
    (source / "added_tokens.json").write_text("{}")
    (source / "pytorch_model.bin").write_bytes(b"x")
    stored = Tensors(ModelFolder(source).weight_files()).stored()
    name = "embeddings.word_embeddings.weight"
    stored[name] = ("F32", stored[name][1] * 2)
    (tmp_path / "target").mkdir()
    ModelFolder(source).copy_to(tmp_path / "target", stored)
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == [
        "1_Pooling", "2_Dense", "added_tokens.json", "config.json", "model.safetensors", "modules.json", "vocab.txt"
    ]  # fmt: skip
    np.testing.assert_array_equal(load_file(tmp_path / "target" / "model.safetensors")[name], stored[name][1])
    assert ufbert.SentenceEncoder(tmp_path / "target").encode("a").shape == (4,)


@pytest.mark.parametrize("name", ["bert-base-uncased", "organisation/model", 3])
def test_a_base_model_of_another_program_is_not_followed(tmp_path, name):
    write_bert(tmp_path / "bert-base-uncased", hidden_act="relu")
    folder = write_bert(tmp_path / "model", base_model=name)
    expected = ufbert.load(write_bert(tmp_path / "same"))([[2, 5, 3]]).last_hidden_state
    np.testing.assert_array_equal(ufbert.load(folder)([[2, 5, 3]]).last_hidden_state, expected)
    assert ModelFolder(folder).base() is None


def test_the_former_key_of_a_base_model_is_followed(tmp_path):
    write_bert(tmp_path / "encoder")
    folder = write_bert(tmp_path / "classifier", base_model="encoder")
    os.unlink(folder / "vocab.txt")
    assert ModelFolder(folder).base().path == (tmp_path / "encoder").resolve()


def test_a_base_model_may_have_its_transformer_in_a_subfolder(tmp_path):
    (tmp_path / "encoder").symlink_to(SUBFOLDER)
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((SUBFOLDER / "0_Transformer" / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"ufbert_base_model": "encoder"}))
    write_tensors(folder / "model.safetensors", {})
    base = ModelFolder(folder).base()
    assert base.path == tmp_path / "encoder" / "0_Transformer"
    assert ModelFolder(folder).tokenizer_folder().path == base.path
