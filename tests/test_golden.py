"""Every golden checkpoint gives the outputs that the reference implementations computed (tolerance: 1e-4)."""

import json

import numpy as np
import pytest
from conftest import GOLDEN
from safetensors.numpy import load_file

import ufbert

TOLERANCE = 1e-4
MODELS = sorted(
    path.parent
    for path in GOLDEN.rglob("expected.safetensors")
    if (path.parent / "config.json").exists() and path.parent.parent.name != "sentence-transformers"
)


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: str(folder.relative_to(GOLDEN)))
def test_model_outputs(folder):
    expected = load_file(folder / "expected.safetensors")
    model = ufbert.load(folder)
    mask = expected.get("attention_mask")
    out = model(expected["input_ids"], mask, expected.get("token_type_ids"))
    outputs = [name for name in ("last_hidden_state", "logits", "pooler_output") if name in expected]
    assert outputs
    for name in outputs:
        found = getattr(out, name)
        assert found.dtype == np.float32 and found.shape == expected[name].shape
        if found.ndim == 3 and mask is not None:
            assert not found[mask == 0].any()  # zero where nothing attends
            found, expected[name] = found[mask == 1], expected[name][mask == 1]
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=TOLERANCE)
    if "logits_no_mask" in expected:
        logits = model(expected["input_ids"]).logits
        np.testing.assert_allclose(logits, expected["logits_no_mask"], rtol=0, atol=TOLERANCE)


def test_leaf_layer():
    folder = GOLDEN / "leaf-fff-depth3"
    arguments = ufbert.cmm.load_leaf_fff(load_file(folder / "layer.safetensors"))
    expected = load_file(folder / "expected.safetensors")
    activation = json.loads((folder / "layer.json").read_text())["activation"].lower()
    y = ufbert.cmm.leaf_fff_forward(expected["x"], **arguments, activation=activation)
    np.testing.assert_allclose(y, expected["y"], rtol=0, atol=1e-5)


def test_all_golden_folders_are_there():
    assert len(MODELS) >= 12
