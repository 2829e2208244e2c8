"""The dense kernels against NumPy in float64, on every instruction set that the machine has."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import examples

from ufbert import InputError, cmm, dense, reference
from ufbert.activations import TABLE
from ufbert.int8 import Int8Matrix

SIZES = st.integers(1, 70)
ACTIVATIONS = st.sampled_from([None, "gelu", "relu", "silu", "tanh"])
each_isa = pytest.mark.parametrize("isa", cmm.supported_isas())


@pytest.fixture(autouse=True)
def restore_isa():
    before = cmm.active_isa()
    yield
    cmm.use_isa(before)


def layer_arrays(rng, rows, width_in, width_out):
    shapes = (rows, width_in), (width_out, width_in), (width_out,), (rows, width_out)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def expected_layer(x, weight, bias, activation, residual):
    y = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
    y = y if activation is None else TABLE[activation](y.astype(np.float32))
    return y + residual


@each_isa
@examples(30)
@given(rows=SIZES, width_in=SIZES, width_out=SIZES, activation=ACTIVATIONS, seed=st.integers(0, 99))
def test_float32_layers(isa, rows, width_in, width_out, activation, seed):
    cmm.use_isa(isa)
    x, weight, bias, residual = layer_arrays(np.random.default_rng(seed), rows, width_in, width_out)
    found = dense.Linear(weight, bias, activation, "float32")(x, residual)
    np.testing.assert_allclose(found, expected_layer(x, weight, bias, activation, residual), atol=5e-5)
    plain = dense.Linear(weight, dtype="float32")(x)
    np.testing.assert_allclose(plain, x.astype(np.float64) @ weight.T, atol=5e-5)


@each_isa
@examples(30)
@given(rows=SIZES, width_in=SIZES, width_out=SIZES, seed=st.integers(0, 99))
def test_bfloat16_layers_round_inputs_and_weights_and_nothing_else(isa, rows, width_in, width_out, seed):
    cmm.use_isa(isa)
    x, weight, bias, residual = layer_arrays(np.random.default_rng(seed), rows, width_in, width_out)
    rounded = [reference.round_to_bfloat16(array) for array in (x, weight)]
    found = dense.Linear(weight, bias, dtype="bfloat16")(x, residual)
    np.testing.assert_allclose(found, expected_layer(*rounded, bias, None, residual), atol=1e-4)


@each_isa
@examples(30)
@given(rows=SIZES, width_in=SIZES, width_out=SIZES, seed=st.integers(0, 99))
def test_int8_layers_err_by_their_rounding_at_most(isa, rows, width_in, width_out, seed):
    cmm.use_isa(isa)
    x, weight, bias, residual = layer_arrays(np.random.default_rng(seed), rows, width_in, width_out)
    step_x = (x.max(1) - x.min(1)) / 255
    step_weight = np.abs(weight).max(1) / 127
    found = dense.Linear(weight, bias, dtype="int8")(x, residual)
    error = np.abs(found - expected_layer(x, weight, bias, None, residual))
    # Half a step of each factor at each of the products, and float32's own rounding.
    bound = 0.5 * np.outer(step_x, np.abs(weight).sum(1)) + 0.5 * np.outer(np.abs(x).sum(1), step_weight)
    bound += 0.25 * width_in * np.outer(step_x, step_weight) + 1e-4
    assert (error <= bound).all()


@each_isa
def test_int8_layers_are_exact_for_whole_numbers(isa):
    cmm.use_isa(isa)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (19, 130)).astype(np.float32)
    x[:, 0], x[:, 1] = 0, 255
    weight = rng.integers(-127, 128, (45, 130)).astype(np.float32)
    weight[:, 0] = 127
    np.testing.assert_allclose(dense.Linear(weight, dtype="int8")(x), x @ weight.T, rtol=1e-6)


@each_isa
@pytest.mark.parametrize("dtype", dense.DTYPES)
def test_a_row_is_the_same_bits_alone_and_in_any_batch(isa, dtype):
    cmm.use_isa(isa)
    x, weight, bias, residual = layer_arrays(np.random.default_rng(0), 203, 100, 130)
    layer = dense.Linear(weight, bias, "gelu", dtype)
    whole = layer(x, residual, num_threads=1)
    np.testing.assert_array_equal(layer(x, residual, num_threads=2), whole)
    np.testing.assert_array_equal(layer(x, residual, num_threads=7), whole)
    parts = np.array_split(np.arange(203), [1, 3, 10, 17, 100])
    np.testing.assert_array_equal(np.concatenate([layer(x[part], residual[part]) for part in parts]), whole)
    np.testing.assert_array_equal(layer(x[::-1].copy(), residual[::-1].copy())[::-1], whole)


@each_isa
@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh", "sigmoid"])
@pytest.mark.parametrize(("rows", "width"), [(0, 3), (1, 1), (5, 16), (37, 45), (100, 7)])
def test_gates(isa, activation, rows, width):
    cmm.use_isa(isa)
    x = np.random.default_rng(0).standard_normal((rows, 2 * width)).astype(np.float32) * 3
    found = dense.gate(x, activation, num_threads=1)
    np.testing.assert_allclose(found, TABLE[activation](x[:, width:].copy()) * x[:, :width], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(dense.gate(x, activation, num_threads=3), found)


@each_isa
@examples(30)
@given(rows=st.integers(1, 40), width=SIZES, seed=st.integers(0, 99))
def test_layer_norm(isa, rows, width, seed):
    cmm.use_isa(isa)
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((rows, width)) * 5 + 20).astype(np.float32)
    weight, bias = rng.standard_normal((2, width)).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-3) * weight + bias
    found = dense.layer_norm(x, weight, bias, 1e-3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(dense.layer_norm(x, weight, bias, 1e-3, num_threads=3), found)


@each_isa
@pytest.mark.parametrize("dtype", dense.DTYPES)
@pytest.mark.parametrize("column", [5, 39])
def test_nan_and_infinity_come_out_of_their_rows_alone(isa, dtype, column):
    """Whether the value stands in a whole vector or in the rest of a row."""
    cmm.use_isa(isa)
    x, weight, bias, residual = layer_arrays(np.random.default_rng(0), 20, 40, 50)
    layer = dense.Linear(weight, bias, dtype=dtype)
    clean = layer(x, residual)
    x[3, column], x[11, column] = np.nan, np.inf
    found = layer(x, residual)
    others = np.delete(np.arange(20), [3, 11])
    np.testing.assert_array_equal(found[others], clean[others])
    assert np.isnan(found[3]).all()
    assert not np.isfinite(found[11]).any()


@each_isa
@pytest.mark.parametrize("width", [65_536, 66_400, 140_001])
def test_int8_sums_do_not_overflow(isa, width):
    """255 * 127 * 66,310 is above the largest int32."""
    cmm.use_isa(isa)
    x, weight = np.ones((9, width), np.float32), np.ones((33, width), np.float32)
    x[:, 0] = 0  # the least value of a row: byte 0, and all others 255
    weight[1:5] = -1
    expected = x.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(dense.Linear(weight, dtype="int8")(x), expected, rtol=1e-6)


@each_isa
def test_int8_weights_that_are_not_finite_come_out_as_nan(isa):
    cmm.use_isa(isa)
    x, weight, bias, _ = layer_arrays(np.random.default_rng(0), 3, 40, 50)
    clean = dense.Linear(weight, bias, dtype="int8")(x)
    weight[7, 3], weight[8, 39] = np.nan, np.inf
    found = dense.Linear(weight, bias, dtype="int8")(x)
    assert np.isnan(found[:, 7:9]).all()
    np.testing.assert_array_equal(np.delete(found, [7, 8], 1), np.delete(clean, [7, 8], 1))


@each_isa
@pytest.mark.parametrize("tiny", [0.0, 1e-45, 1e-39, 3e-37])
def test_int8_rows_of_almost_nothing(isa, tiny):
    """Whose steps have no finite reciprocal."""
    cmm.use_isa(isa)
    x = np.full((5, 40), 1.5, np.float32)
    x[1], x[2, 3], x[3], x[4, 39] = tiny, 1.5 + tiny, -tiny, tiny
    weight = np.full((33, 40), tiny, np.float32)
    weight[3:] = 1
    weight[7, 7] = -tiny
    found = dense.Linear(weight, dtype="int8")(x)
    np.testing.assert_allclose(found, x.astype(np.float64) @ weight.T, rtol=1e-6, atol=1e-30)


def test_int8_is_the_same_bits_with_and_without_dot_product_instructions():
    supported = cmm.supported_isas()
    x, weight, bias, residual = layer_arrays(np.random.default_rng(0), 37, 150, 70)
    for pair in (("avx2", "avx2vnni"), ("avx512", "avx512vnni"), ("avx512vnni", "avx512bf16")):
        if set(pair) <= set(supported):
            found = []
            for name in pair:
                cmm.use_isa(name)
                found.append(dense.Linear(weight, bias, "gelu", "int8")(x, residual))
            np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("dtype", dense.DTYPES)
def test_a_packed_layer_stays_on_its_instruction_set(dtype):
    """Its layout of the weights is that of the instruction set that it was packed for."""
    x, weight, bias, residual = layer_arrays(np.random.default_rng(0), 37, 150, 70)
    for packed, other in itertools.permutations(cmm.supported_isas(), 2):
        cmm.use_isa(packed)
        layer = dense.Linear(weight, bias, "gelu", dtype)
        before = layer(x, residual)
        cmm.use_isa(other)
        np.testing.assert_array_equal(layer(x, residual), before)


def test_no_rows():
    layer = dense.Linear(np.ones((5, 4), np.float32), dtype="float32")
    assert layer(np.zeros((0, 4), np.float32)).shape == (0, 5)
    assert dense.attention(np.zeros((0, 12), np.float32), np.zeros(1, int), 2, 1.0).shape == (0, 4)
    assert dense.layer_norm(np.zeros((0, 4), np.float32), np.ones(4), np.ones(4), 0.1).shape == (0, 4)


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "int8"])
@pytest.mark.parametrize("activation", [None, "gelu", "gelu_tanh"])
@pytest.mark.parametrize("with_residual", [False, True])
def test_out_takes_the_result(dtype, activation, with_residual):
    rng = np.random.default_rng(0)
    layer = dense.Linear(rng.standard_normal((20, 33)), rng.standard_normal(20), activation, dtype)
    x = rng.standard_normal((5, 33), np.float32)
    residual = rng.standard_normal((5, 20), np.float32) if with_residual else None
    out = np.full((5, 20), np.nan, "f4")
    assert layer(x, residual, out=out) is out
    np.testing.assert_array_equal(out, layer(x, residual))


def test_wrong_out():
    layer = dense.Linear(np.ones((20, 20)), dtype="float32")
    x, residual = np.ones((5, 20), "f4"), np.ones((5, 20), "f4")
    for out in (np.empty((5, 21), "f4"), np.empty((5, 20)), np.empty((20, 5), "f4").T, [[0.0]]):
        with pytest.raises(InputError, match="out: expected"):
            layer(x, out=out)
    with pytest.raises(InputError, match="overlaps x"):
        layer(x, out=x)
    with pytest.raises(InputError, match="overlaps residual"):
        layer(x, residual, out=residual)


def test_many_threads_share_one_layer():
    x, weight, bias, residual = layer_arrays(np.random.default_rng(0), 130, 96, 200)
    layer = dense.Linear(weight, bias, "gelu", "int8")
    alone = layer(x, residual)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: layer(x, residual), range(64)):
            np.testing.assert_array_equal(found, alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dense.Linear(np.ones(3)), "weight: expected 2 dimensions"),
        (lambda: dense.Linear(np.ones((3, 0)), dtype="float32"), "no empty axis"),
        (lambda: dense.Linear(np.ones((3, 4)), np.ones(4)), "bias: expected shape"),
        (lambda: dense.Linear(np.ones((3, 4)), activation="swish"), "activation: expected one of"),
        (lambda: dense.Linear(np.ones((3, 4)), dtype="int4"), "dtype: expected one of"),
        (lambda: dense.Linear(np.ones((3, 4)))(np.ones((2, 5))), "x: expected shape"),
        (lambda: dense.Linear(np.ones((3, 4)))(np.ones((2, 4)), np.ones((2, 4))), "residual: expected shape"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 3], 2, 1.0), "expected to cut"),
        (lambda: dense.attention(np.ones((4, 13)), [0, 4], 2, 1.0), "qkv: expected"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 6, 4], 2, 1.0), "expected to cut"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 4], 2, 1.0, np.ones(3)), "attended: expected shape"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 4], 2, 1.0, None, np.ones((2, 6))), "distance_bias: expected"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 4], 2, 1.0, None, np.ones((3, 7))), "distance_bias: expected"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 4], 2, 1.0, None, np.ones((2, 5))), "texts of up to 3 tokens"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 4], 2, 1.0, rotations=np.ones((4, 3))), "rotations: expected"),
        (lambda: dense.attention(np.ones((4, 18)), [0, 4], 2, 1.0, rotations=np.ones((4, 3))), "an even number"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 4], 2, 1.0, rotations=np.ones((3, 2))), "up to 3 tokens"),
        (lambda: dense.attention(np.ones((4, 12)), [0, 4], 2, 1.0, window=-1), "window: expected an integer from 0"),
        (lambda: dense.gate(np.ones((4, 3)), "silu"), "values and then gates"),
        (lambda: dense.gate(np.ones((4, 2)), "swish"), "activation: expected one of"),
        (lambda: dense.layer_norm(np.ones((4, 12)), np.ones(3), np.ones(12), 0.1), "weight: expected shape"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("isa", cmm.supported_isas())
@pytest.mark.parametrize("shape", [(1, 1), (45, 130), (96, 31), (7, 5)])
def test_a_matrix_in_8_bits_is_packed_as_it_is(isa, shape):
    cmm.use_isa(isa)
    rng = np.random.default_rng(0)
    weight = Int8Matrix(rng.integers(-127, 128, shape).astype(np.int8), rng.random(shape[0], np.float32))
    x, bias = rng.standard_normal((9, shape[1]), np.float32), rng.standard_normal(shape[0], np.float32)
    for dtype in ("float32", "bfloat16"):
        expected = dense.Linear(weight[:], bias, "gelu", dtype)(x)
        np.testing.assert_array_equal(dense.Linear(weight, bias, "gelu", dtype)(x), expected)
    np.testing.assert_allclose(dense.Linear(weight, bias)(x), x @ weight[:].T + bias, rtol=1e-5, atol=1e-4)
    if shape[1] > 1:  # exact for whole numbers, though rows without a 127 would be rounded anew if they were float32
        whole = rng.integers(0, 256, x.shape).astype(np.float32)
        whole[:, 0], whole[:, 1] = 0, 255
        expected = whole.astype(np.float64) @ weight[:].T
        np.testing.assert_allclose(dense.Linear(weight, dtype="int8")(whole), expected, rtol=1e-5, atol=1e-2)
