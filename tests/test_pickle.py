"""Packed parts can be pickled and copied: what comes back gives the same bits."""

import copy
import pickle

import numpy as np
import pytest
from lab import bits

from ufbert import _cmm, _dense, cmm, testing
from ufbert.batch import Batch
from ufbert.dense import DTYPES, FusedLayer, Linear
from ufbert.errors import InputError

COPIES = [copy.copy, copy.deepcopy, *(lambda part, p=p: pickle.loads(pickle.dumps(part, p)) for p in (2, 5))]


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("weight_dtype", cmm.WEIGHT_DTYPES)
def test_trees(isa, weight_dtype, make):
    case = testing.make_case(33, 2, 4, 40, 70)
    layer = cmm.PackedFFF(*case.arrays[1:], 4, weight_dtype=weight_dtype, activation="silu")
    other = make(layer)
    assert repr(other) == repr(layer) and other.nbytes == layer.nbytes and other.row_work == layer.row_work
    results = zip(other(case.x, return_path=True), layer(case.x, return_path=True), strict=True)
    assert all((bits(result) == bits(expected)).all() for result, expected in results)


@pytest.mark.parametrize("weight_dtype", cmm.WEIGHT_DTYPES)
def test_a_copy_outlives_its_original(weight_dtype):
    case = testing.make_case(9, 1, 3, 40, 70)
    layer = cmm.PackedFFF(*case.arrays[1:], 3, weight_dtype=weight_dtype)
    expected, other = layer(case.x), pickle.loads(pickle.dumps(layer))
    del layer
    np.testing.assert_array_equal(other(case.x), expected)


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("dtype", [None, *DTYPES])
@pytest.mark.parametrize("activation", [None, "gelu"])
def test_linear(isa, dtype, activation, make):
    rng = np.random.default_rng(0)
    weight, bias, x = (rng.standard_normal(shape, np.float32) for shape in ((70, 40), 70, (9, 40)))
    layer = Linear(weight, bias, activation, dtype)
    other = make(layer)
    assert repr(other) == repr(layer) and other.nbytes == layer.nbytes
    np.testing.assert_array_equal(bits(other(x)), bits(layer(x)))


@pytest.mark.parametrize("make", COPIES)
@pytest.mark.parametrize("trees", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fused_layer(isa, dtype, trees, make):
    rng = np.random.default_rng(1)

    def linear(outputs, inputs):
        weight = rng.standard_normal((outputs, inputs), np.float32) / 8
        return Linear(weight, rng.standard_normal(outputs, np.float32), None, dtype)

    norm = rng.standard_normal(32, np.float32), rng.standard_normal(32, np.float32), 1e-5
    case = testing.make_case(1, 2, 3, 32, 32)
    packed = cmm.PackedFFF(*case.arrays[1:], 3, weight_dtype=dtype), norm[1]
    feed_forward = packed if trees else (linear(64, 32), linear(32, 64))
    options = {"norm1": norm, "norm2": norm, "num_heads": 4, "scale": 0.35, "norm_position": "post"}
    layer = FusedLayer(linear(96, 32), linear(32, 32), feed_forward, **options)
    batch = Batch.from_sequences([[1, 2, 3], [4, 5, 6, 7, 8]], [[0] * 3, [0] * 5])
    x = rng.standard_normal((8, 32), np.float32)
    np.testing.assert_array_equal(bits(make(layer)(x, batch)), bits(layer(x, batch)))


def test_stored_weights_that_do_not_fit_are_refused():
    panels = Linear(np.ones((4, 8), "f4"), None, None, "float32").packed.__reduce__()[1]
    *arguments, (isa, *shape, memory) = panels
    with pytest.raises(InputError, match="packed for vax, which does not run here"):
        _dense.PackedPanels(*arguments, ("vax", *shape, memory))
    with pytest.raises(ValueError, match=r"stored weights: expected \d+ bytes"):
        _dense.PackedPanels(*arguments, (isa, *shape, memory[:-1]))
    case = testing.make_case(1, 1, 1, 4, 4)
    *arguments, (*shape, memory) = cmm.PackedFFF(*case.arrays[1:], 1).packed.__reduce__()[1]
    with pytest.raises(ValueError, match=r"stored weights: expected \d+ bytes"):
        _cmm.PackedLayer(*arguments, (*shape, memory[:-1]))
