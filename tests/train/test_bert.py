"""ufbert.train.Bert computes what ufbert computes, and can be written back."""

import numpy as np
import pytest
import torch
from conftest import BERT_CONFIG, FFF_CONFIG, GOLDEN, bert_tensors, write_bert, write_fff

import ufbert
from ufbert.errors import CheckpointError
from ufbert.train import Bert, mixed_precision


def compare_to_ufbert(folder):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 20, (3, 9))
    mask, types = np.ones_like(ids), rng.integers(0, 2, ids.shape)
    mask[1, 5:] = 0
    model = Bert.from_folder(folder)
    with torch.inference_mode():
        hidden = model(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(types)).numpy()
    expected = ufbert.load(folder)(ids, mask, types).last_hidden_state
    np.testing.assert_allclose(hidden * mask[:, :, None], expected, atol=2e-5)
    return model


@pytest.mark.parametrize("act", ["gelu", "relu", "gelu_new", "linear", "silu", "tanh"])
def test_dense(tmp_path, act):
    compare_to_ufbert(write_bert(tmp_path / "bert", hidden_act=act))


@pytest.mark.parametrize(
    "name",
    [
        "distilbert/base",
        "distilbert/masked-lm",
        "roberta/base",
        "roberta/masked-lm",
        "camembert/base",
        "xlm-roberta/base",
        "mpnet/base",
        "mpnet/masked-lm",
        "electra/base",
        "electra/equal-widths",
    ],
)
def test_other_families(name):
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 20, (2, 9))
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    model = Bert.from_folder(GOLDEN / name)
    with torch.inference_mode():
        hidden = model(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    expected = ufbert.load(GOLDEN / name)(ids, mask).last_hidden_state
    np.testing.assert_allclose(hidden * mask[:, :, None], expected, atol=2e-5)


@pytest.mark.parametrize("family", ["modernbert", "nomic-bert"])
def test_families_with_gated_layers_are_refused_by_name(family):
    with pytest.raises(CheckpointError, match=f"expected a BERT, .* found {family.replace('-', '_')} with"):
        Bert.from_folder(GOLDEN / family / "base")


def test_a_bias_by_distance_has_gradients():
    model = Bert.from_folder(GOLDEN / "mpnet" / "base")
    model(torch.arange(4, 24).view(2, 10), torch.ones(2, 10, dtype=torch.long)).square().sum().backward()
    gradient = model.embeddings["distance_bias"].weight.grad
    near = [*range(8), *range(17, 24)]  # a text of ten tokens reaches no other bucket but two
    assert (gradient[near].abs().sum(1) > 0).all() and not gradient[10:16].any()


def test_fff(tmp_path):
    model = compare_to_ufbert(write_fff(tmp_path / "fff"))
    assert model.config.num_trees == FFF_CONFIG["num_trees"]


def test_a_shared_encoder(tmp_path):
    write_bert(tmp_path / "encoder")
    tensors = {"bert." + name: array for name, array in bert_tensors(BERT_CONFIG, seed=1).items()}
    mine = {name: array for name, array in tensors.items() if name.startswith("bert.encoder.layer.1.")}
    compare_to_ufbert(write_bert(tmp_path / "mine", mine, ufbert_base_model="encoder"))


def test_names_are_the_checkpoint_s(tmp_path):
    from safetensors.numpy import load_file

    for name, write in (("bert", write_bert), ("fff", write_fff)):
        folder = write(tmp_path / name)
        stored = load_file(folder / "model.safetensors")
        tensors = Bert.from_folder(folder).tensors()
        assert {key: array.shape for key, array in tensors.items()} == {
            key: array.shape for key, array in stored.items() if "pooler" not in key
        }
        for key, array in tensors.items():
            np.testing.assert_array_equal(array, stored[key])


def test_feed_forward_layers_are_replaced(tmp_path):
    model = Bert.from_folder(write_bert(tmp_path / "bert"))
    model.replace_feed_forward(feed_forward="fff", num_trees=2, depth=2, output_bias=True)
    names = set(model.tensors())
    assert "encoder.layer.0.ffn.linear_out.bias" in names
    assert not any(".intermediate." in name for name in names)
    model(torch.zeros(1, 3, dtype=torch.long)).sum().backward()
    model.replace_feed_forward(feed_forward="dense", intermediate_size=0)
    assert torch.isfinite(model(torch.zeros(1, 3, dtype=torch.long))).all()


def test_another_family_is_refused():
    with pytest.raises(CheckpointError, match="expected a BERT"):
        Bert.from_folder(GOLDEN / "ultrafastbert-3x2")


@pytest.mark.parametrize(
    ("facts", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bfloat16_is_used_where_the_cpu_multiplies_it(facts, dtype, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts, raising=False)
    linear, x = torch.nn.Linear(3, 4), torch.ones(2, 3)
    with mixed_precision():
        assert linear(x).dtype == dtype
    with mixed_precision(enabled=False):
        assert linear(x).dtype == torch.float32


def test_bfloat16_is_not_used_where_pytorch_cannot_say_what_the_cpu_has(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    with mixed_precision():
        assert torch.nn.Linear(3, 4)(torch.ones(2, 3)).dtype == torch.float32
