import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import BERT_CONFIG, GOLDEN, bert_tensors, write_bert, write_sentence_model
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import ufbert
from ufbert import CheckpointError, InputError
from ufbert.checkpoint.tensors import narrow_bfloat16, widen_bfloat16, write_tensors

IDS = np.array([[2, 5, 6, 7, 3]])


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 0), ("float16", 0.02), ("bfloat16", 0.15), ("int8", 0.15)]
)
def test_converted_models_compute_the_same(bert_folder, tmp_path, dtype, tolerance):
    target = ufbert.convert(bert_folder, tmp_path / "new" / "model", dtype)
    expected = ufbert.load(bert_folder)(IDS).last_hidden_state
    np.testing.assert_allclose(ufbert.load(target)(IDS).last_hidden_state, expected, atol=tolerance)
    assert os.listdir(tmp_path / "new") == ["model"]


def test_sentence_folders_keep_their_modules(tmp_path):
    source = write_sentence_model(tmp_path / "source")
    (source / "evil.py").write_text("raise SystemExit")
    target = ufbert.convert(source, tmp_path / "target")
    assert not (target / "evil.py").exists()
    assert ufbert.SentenceEncoder(target).encode("a").shape == (12,)


def with_dense(folder):
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(
        json.dumps([*modules, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"}])
    )
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text('{"in_features": 12, "out_features": 4, "bias": false}')
    return folder / "2_Dense"


def test_only_folders_of_modules_are_followed(tmp_path):
    source = write_sentence_model(tmp_path / "source")
    write_bert(source / "checkpoint-100")
    (source / "again").symlink_to(source, target_is_directory=True)
    weights = {"linear.weight": ("F32", np.ones((4, 12), np.float32))}
    write_tensors(with_dense(source) / "model.safetensors", weights)
    target = ufbert.convert(source, tmp_path / "target")
    assert sorted(path.name for path in target.iterdir() if path.is_dir()) == ["1_Pooling", "2_Dense"]
    assert ufbert.SentenceEncoder(target).encode("a").shape == (4,)


def test_a_transformer_in_a_subfolder(tmp_path):
    source = GOLDEN / "sentence-transformers" / "subfolder-0-transformer"
    target = ufbert.convert(source, tmp_path / "target", "float32")
    expected = ufbert.SentenceEncoder(source).encode("a text")
    np.testing.assert_array_equal(ufbert.SentenceEncoder(target).encode("a text"), expected)


def test_a_dense_module_with_a_faulty_pickle_is_refused(tmp_path):
    source = write_sentence_model(tmp_path / "source")
    (with_dense(source) / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match=r"source/2_Dense/pytorch_model.bin: expected a whole archive of torch"):
        ufbert.convert(source, tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("target", [None, 5, "a\0b", "x" * 300, b"x", [], "config.json/x"])
def test_targets_that_are_no_paths(bert_folder, monkeypatch, target):
    monkeypatch.chdir(bert_folder)
    with pytest.raises(InputError, match="target: expected a path"):
        ufbert.convert(bert_folder, target)


def test_the_original_and_existing_targets_stay(bert_folder, tmp_path):
    before = (bert_folder / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="expected a name that is free"):
        ufbert.convert(bert_folder, bert_folder)
    with pytest.raises(InputError, match="dtype"):
        ufbert.convert(bert_folder, tmp_path / "x", "int3")
    assert (bert_folder / "model.safetensors").read_bytes() == before


def test_values_beyond_float16_are_refused(tmp_path):
    tensors = bert_tensors(BERT_CONFIG)
    tensors["pooler.dense.bias"][3] = 1e6
    source = write_bert(tmp_path / "source", tensors)
    with pytest.raises(CheckpointError, match=r"pooler.dense.bias: expected values up to 65504"):
        ufbert.convert(source, tmp_path / "target")
    assert os.listdir(tmp_path) == ["source"]  # nothing half-written
    assert ufbert.convert(source, tmp_path / "target", "bfloat16").is_dir()


def test_shards_become_one_file(tmp_path):
    target = ufbert.convert(GOLDEN / "hf" / "sharded", tmp_path / "one", "float32")
    expected = ufbert.load(GOLDEN / "hf" / "sharded")(IDS).logits
    np.testing.assert_array_equal(ufbert.load(target)(IDS).logits, expected)
    assert not (target / "model.safetensors.index.json").exists()


def test_the_library_reads_what_we_write(bert_folder, tmp_path):
    target = ufbert.convert(bert_folder, tmp_path / "model", "float16")
    written, original = load_file(target / "model.safetensors"), bert_tensors(BERT_CONFIG)
    assert set(written) == set(original)
    for name, array in original.items():
        np.testing.assert_array_equal(written[name], array.astype(np.float16))


@given(st.floats(width=32))
def test_bfloat16_rounds_to_nearest(value):
    bits = narrow_bfloat16(np.float32([value]))
    found = widen_bfloat16(bits)[0]
    if np.isnan(value):
        assert np.isnan(found)
        return
    neighbours = widen_bfloat16(np.clip(bits.astype(int) + np.array([-1, 0, 1]), 0, 65535).astype(np.uint16))
    neighbours = neighbours[np.isfinite(neighbours)].astype(np.float64)
    if np.isfinite(found):
        assert abs(found - value) <= abs(neighbours - value).min()
    else:
        assert np.signbit(found) == np.signbit(value) and abs(value) > 3.38e38


def test_a_killed_conversion_leaves_no_target(bert_folder, tmp_path):
    code = f"""
import os, ufbert.convert, sys
module = sys.modules["ufbert.checkpoint.folder"]
module.write_tensors = lambda *a: os._exit(9)
ufbert.convert({str(bert_folder)!r}, {str(tmp_path / "target")!r})
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert not (tmp_path / "target").exists()
    assert json.loads((bert_folder / "config.json").read_text())
