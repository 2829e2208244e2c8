import subprocess
import sys

import ufbert


def test_info_names_what_runs():
    facts = ufbert.info()
    assert facts["version"] == ufbert.__version__
    assert facts["instruction_set"] in facts["instruction_sets"]
    assert facts["kernel"] == ("numpy" if facts["instruction_sets"] == ["numpy"] else "cython")
    assert facts["threads"] >= 1 and facts["cpus"] >= 1
    assert facts["blas"] and facts["openmp"] is None


def test_without_the_extension_numpy_takes_over():
    """The same golden outputs, in a process where the compiled module cannot be imported."""
    code = """
import sys; sys.modules["ufbert._cmm"] = None
import numpy as np, ufbert
from safetensors.numpy import load_file
assert ufbert.info()["kernel"] == "numpy" and ufbert.info()["openmp"] is None
folder = sys.argv[1]
expected = load_file(folder + "/expected.safetensors")
logits = ufbert.load(folder)(expected["input_ids"]).logits
np.testing.assert_allclose(logits, expected["logits_no_mask"], rtol=0, atol=1e-4)
leaf = ufbert.cmm.leaf_fff_forward(np.ones((2, 3)), np.ones((1, 3)), np.ones(1), np.ones((2, 3, 4)), np.ones((2, 4)),
                                   np.ones((2, 4, 5)))
assert leaf.shape == (2, 5)
try:
    ufbert.load(folder, "int8")
except ufbert.InputError as error:
    assert "without compiled kernels" in str(error)
else:
    raise AssertionError("int8 needs the kernels")
"""
    from conftest import GOLDEN

    subprocess.run([sys.executable, "-c", code, str(GOLDEN / "ultrafastbert-3x2")], check=True)
