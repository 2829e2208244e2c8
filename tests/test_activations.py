import math

import numpy as np
import pytest
from scipy import special

from ufbert import InputError, activations, isa
from ufbert.activations import TABLE

X = np.concatenate([np.linspace(-12, 12, 20_001), [-np.inf, np.inf, 0.0, -0.0, 1e-30, -1e30, 1e30]]).astype(np.float32)
EXACT = {
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * special.expit(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * special.expit(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", TABLE)
def test_activations_in_float64(name):
    finite = X[np.isfinite(X)]
    with np.errstate(over="ignore", invalid="ignore"):
        found, expected = TABLE[name](finite.copy()), EXACT[name](finite.astype(np.float64))
    keep = np.isfinite(expected)
    np.testing.assert_allclose(found[keep], expected[keep], rtol=1e-6, atol=5e-7)


def test_gelu_of_infinity_and_nan():
    y = TABLE["gelu"](np.array([np.inf, -np.inf, np.nan], np.float32))
    assert y[0] == np.inf and y[1] == 0 and np.isnan(y[2])


@pytest.mark.parametrize("name", TABLE)
def test_activations_take_any_shape_and_stride(name):
    x = np.random.default_rng(0).standard_normal((6, 70)).astype(np.float32)
    whole = TABLE[name](x.copy())
    np.testing.assert_array_equal(TABLE[name](np.asfortranarray(x)[::2]), whole[::2])


@pytest.mark.skipif(isa.fff_kernels is None, reason="built without kernels")
def test_the_kernels_codes_are_the_tables():
    assert isa.fff_kernels.ACTIVATIONS == activations.IN_KERNELS


@pytest.mark.parametrize("name", activations.IN_KERNELS)
def test_what_the_kernels_have_has_a_derivative(name):
    x, step = np.linspace(-5, 5, 1_000), 1e-6
    function = TABLE[name].exact or TABLE[name].function
    slope = (function(x + step) - function(x - step)) / (2 * step)
    np.testing.assert_allclose(TABLE[name].derivative(x), slope, atol=1e-6)


def test_each_spelling_means_one_activation():
    spellings = [spelling for act in TABLE.values() for spelling in act.spellings]
    assert len(spellings) == len(set(spellings)) == len(activations.HUGGING_FACE)
    assert activations.TORCH["GELU"] == "gelu" and activations.HUGGING_FACE["gelu_new"] == "gelu_tanh"


@pytest.mark.parametrize("name", ["gelu_tanh", "identity", None, ["gelu"]])
def test_what_the_kernels_do_not_have_is_refused(name):
    with pytest.raises(InputError, match="activation: expected one of gelu, relu, silu, tanh, got"):
        activations.check_kernel_activation(name)


def test_softmax():
    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32) * 50
    np.testing.assert_allclose(activations.softmax(x), special.softmax(x.astype(np.float64), axis=-1), atol=1e-6)
