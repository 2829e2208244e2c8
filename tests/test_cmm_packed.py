"""Packed layers: the same bits as plain arrays in float32, the reference on rounded weights in bfloat16 and int8."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lab import bits, examples, on_every_isa

import ufbert
from ufbert import cmm, reference, testing
from ufbert.int8 import FactoredRows, quantize


def quantized(rows):
    matrix = quantize(rows.reshape(-1, rows.shape[-1]))
    return FactoredRows(matrix.values.reshape(rows.shape), matrix.scale.reshape(rows.shape[:-1]))


def widened(rows):
    """What int8 rows stand for, in float64: their products with factors are not rounded in the kernels."""
    values = rows.values.astype(np.float64) * (1 if rows.scales is None else rows.scales.astype(np.float64)[..., None])
    return values if rows.columns is None else values * rows.columns


def in_int8(rows):
    return widened(quantized(rows))


ROUNDED = {"float32": np.asarray, "bfloat16": reference.round_to_bfloat16, "int8": in_int8}
WEIGHT_DTYPES = list(ROUNDED)


def rounded(case, weight_dtype):
    return case.x, ROUNDED[weight_dtype](case.w_in), case.b_in, ROUNDED[weight_dtype](case.w_out)


def pack(case, weight_dtype="float32"):
    return cmm.PackedFFF(*case.arrays[1:], case.depth, weight_dtype=weight_dtype, activation=case.activation)


@examples(120)
@given(testing.fff_cases(), st.sampled_from([1, 2]))
@example(testing.make_case(300, 1, 9, 40, 40), 2)
@example(testing.make_case(16, 1, 3, 768, 768), 2)
def test_float32_has_the_bits_of_plain_arrays(case, num_threads):
    for _ in on_every_isa():
        plain = cmm.fff_forward(
            *case.arrays, case.depth, num_threads=1, return_path=True, activation=case.activation, return_scores=True
        )
        packed = pack(case)(case.x, num_threads=num_threads, return_path=True, return_scores=True)
        for result, expected in zip(packed, plain, strict=True):
            np.testing.assert_array_equal(bits(result), bits(expected))


@pytest.mark.parametrize("weight_dtype", ["bfloat16", "int8"])
@examples(120)
@given(case=testing.fff_cases(), num_threads=st.sampled_from([1, 2]))
@example(case=testing.make_case(300, 1, 9, 40, 40), num_threads=2)
@example(case=testing.make_case(16, 1, 3, 768, 768), num_threads=2)
@example(case=testing.make_case(9, 1, 3, 5000, 4500), num_threads=1)
def test_shorter_weights_are_the_reference_on_rounded_weights(weight_dtype, case, num_threads):
    for _ in on_every_isa():
        y, path = pack(case, weight_dtype)(case.x, num_threads=num_threads, return_path=True)
        testing.assert_fff_close(y, path, *rounded(case, weight_dtype), case.depth, case.activation)


@pytest.mark.parametrize("out", [33, 448])
@pytest.mark.parametrize("kind", ["f2", "f4", "columns", "columns alone"])
def test_int8_rows_with_factors_are_taken_as_they_are(isa, out, kind):
    rng = np.random.default_rng(3)
    case = testing.make_case(200, 4, 5, 70, out)  # more visits than are summed at once
    w_in, w_out = (rng.integers(-128, 128, rows.shape).astype(np.int8) for rows in (case.w_in, case.w_out))
    scales = [rng.uniform(0, 0.01, case.b_in.shape).astype(kind if len(kind) == 2 else "f4") for _ in range(2)]
    columns = np.exp(rng.standard_normal(out)).astype("f4") if "columns" in kind else None
    rows = FactoredRows(w_in, scales[0]), FactoredRows(w_out, None if kind == "columns alone" else scales[1], columns)
    layer = cmm.PackedFFF(rows[0], case.b_in, rows[1], 5, weight_dtype="int8")
    y, path = layer(case.x, return_path=True)
    testing.assert_fff_close(y, path, case.x, widened(rows[0]), case.b_in, widened(rows[1]), 5)
    np.testing.assert_array_equal(layer(case.x[7:8])[0], y[7])
    plain = cmm.PackedFFF(rows[0], case.b_in, rows[1], 5)
    np.testing.assert_allclose(y, plain(case.x), rtol=1e-4, atol=1e-4 * np.abs(y).max())


def test_columns_that_are_far_larger_than_others_cost_the_others_no_digits(isa):
    case = testing.make_case(200, 2, 5, 70, 45)
    case.w_out[:, :, 9] *= 300
    exact = cmm.fff_forward(*case.arrays, 5)
    levelled = cmm.PackedFFF(case.w_in, case.b_in, FactoredRows.levelled(case.w_out), 5, weight_dtype="int8")
    errors = [np.abs(np.delete(layer(case.x) - exact, 9, 1)).mean() for layer in (pack(case, "int8"), levelled)]
    assert errors[1] < 0.1 * errors[0]


def test_int8_rows_are_rounded_as_the_specification_says(isa):
    case = testing.make_case(50, 2, 4, 70, 33)
    case.w_in[0, 3], case.w_in[0, 4], case.w_out[1, 5] = 0, 1e-44, 3e-39
    given = cmm.PackedFFF(quantized(case.w_in), case.b_in, quantized(case.w_out), 4, weight_dtype="int8")
    for found, expected in zip(*(each(case.x, return_path=True) for each in (pack(case, "int8"), given)), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert given.nbytes == 62 * (128 + 64 + 12)  # rows filled up to whole cache lines, a bias and two scales


def test_an_int8_row_that_is_not_finite_comes_out_as_nan(isa):
    case = testing.make_case(30, 1, 0, 40, 33)
    case.w_out[0, 0, 5] = np.inf
    assert np.isnan(pack(case, "int8")(case.x)).all()


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("shape", [(2500, 1, 8, 64, 70), (700, 3, 4, 33, 31), (90, 70, 0, 40, 100)])
def test_any_split_order_and_threads(isa, weight_dtype, shape):
    case = testing.make_case(*shape, seed=6)
    layer = pack(case, weight_dtype)
    y = layer(case.x, num_threads=1)
    order = np.random.default_rng(0).permutation(len(case.x))
    for num_threads in (1, 2, 3, 8):
        np.testing.assert_array_equal(layer(case.x[order], num_threads=num_threads), y[order])
        parts = [layer(part, num_threads=num_threads) for part in np.array_split(case.x, 7)]
        np.testing.assert_array_equal(np.concatenate(parts), y)
    for token in range(0, len(case.x), 61):
        np.testing.assert_array_equal(layer(case.x[token : token + 1])[0], y[token])


def test_streamed_outputs_are_the_same(isa):
    """More than 8 MB of output is written past the caches."""
    case = testing.make_case(3500, 1, 3, 32, 768, seed=7)
    layer = pack(case)
    y = layer(case.x, num_threads=2)
    np.testing.assert_array_equal(y[1234:1300], layer(case.x[1234:1300]))


@examples(40)
@given(testing.fff_cases(kinds=("normal", "nonfinite")), st.sampled_from(WEIGHT_DTYPES))
def test_unvisited_nodes_do_not_matter(case, weight_dtype):
    for _ in on_every_isa():
        y, path = pack(case, weight_dtype)(case.x, return_path=True)
        again = pack(testing.poison_unvisited(case, path), weight_dtype)(case.x)
        np.testing.assert_array_equal(bits(again), bits(y))


def test_out_and_attributes():
    case = testing.make_case(6, 2, 3, 33, 20, activation="silu")
    layer = pack(case, "bfloat16")
    out = np.full((6, 20), np.nan, "f4")
    y, path = layer(case.x, out=out, return_path=True)
    assert y is out and path.shape == (6, 2, 4)
    np.testing.assert_array_equal(out, layer(case.x))
    assert (layer.num_trees, layer.num_nodes, layer.depth, layer.width_in, layer.width_out) == (2, 15, 3, 33, 20)
    assert layer.nbytes == 30 * (128 + 64 + 4)  # rows filled up to 64 and 32 elements, and a bias
    assert repr(layer) == "PackedFFF(2x3, 33 -> 20, bfloat16, silu)"


def test_the_arrays_are_not_kept():
    case = testing.make_case(6, 1, 3, 33, 20)
    layer = pack(case)
    y = layer(case.x)
    for array in case.arrays[1:]:
        array[...] = np.nan
    np.testing.assert_array_equal(layer(case.x), y)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.zeros((6, 20)), "out: expected a float32 array of shape"),
        (np.zeros((5, 20), "f4"), "out: expected a float32 array of shape"),
        ([[0.0]], "out: expected a float32 array of shape"),
        (np.zeros((20, 6), "f4").T, "out: expected a C-contiguous"),
        (read_only(np.zeros((6, 20), "f4")), "out: expected a C-contiguous, writeable"),
    ],
)
def test_wrong_out(out, message):
    case = testing.make_case(6, 1, 3, 33, 20)
    with pytest.raises(ufbert.UfbertError, match=message):
        pack(case)(case.x, out=out)


def test_the_short_and_the_long_way_agree(isa):
    """Few tokens in a plain float32 array are checked in the extension; all else goes the long way round."""
    case = testing.make_case(4, 2, 3, 33, 20, seed=8)
    layer = pack(case)
    y = layer(case.x, return_path=True)[0]
    wide = np.zeros((4, 40), "f4")
    wide[:, :33] = case.x
    same = (read_only(case.x.copy()), case.x.tolist(), case.x.astype(">f4"), np.asfortranarray(case.x), wide[:, :33])
    for x in (case.x, *same):
        np.testing.assert_array_equal(layer(x), y)
        np.testing.assert_array_equal(layer(x, num_threads=2, out=np.empty((4, 20), "f4")), y)
    assert layer(case.x[:0]).shape == (0, 20)
    for x in (np.zeros(33, "f4"), np.zeros((4, 33), "c8"), np.zeros((4, 32), "f4")):
        with pytest.raises(ufbert.UfbertError, match="x: expected"):
            layer(x)
    with pytest.raises(ufbert.UfbertError, match="num_threads"):
        layer(case.x, num_threads=0)


def test_out_must_not_overlap_x():
    case = testing.make_case(6, 1, 3, 20, 20)
    with pytest.raises(ufbert.UfbertError, match="overlaps x"):
        pack(case)(case.x, out=case.x)


def test_wrong_arguments():
    case = testing.make_case(6, 1, 3, 33, 20)
    with pytest.raises(
        ufbert.UfbertError, match="weight_dtype: expected one of float32, bfloat16, int8, got 'float16'"
    ):
        pack(case, "float16")
    with pytest.raises(ufbert.UfbertError, match=r"x: expected shape \(T, 33\)"):
        pack(case)(case.x[:, :32])
    with pytest.raises(ufbert.UfbertError, match=r"w_in: expected shape \(1, 31, 33\)"):
        cmm.PackedFFF(*case.arrays[1:], 4)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            FactoredRows(np.zeros((1, 15, 20), "i1"), np.ones((1, 14))),
            r"w_out: scales: expected shape \(1, 15\), \(P, n\)",
        ),
        (
            FactoredRows(np.zeros((1, 15, 20), "f4"), np.ones((1, 15))),
            "w_out: scales: expected None for values that are not",
        ),
        (
            FactoredRows(np.zeros((1, 15, 20), "i1"), None, np.ones(19)),
            r"w_out: columns: expected shape \(20,\), \(H,\)",
        ),
        (FactoredRows(np.zeros((1, 15, 20), "i1"), None, np.zeros(20)), "w_out: columns: expected positive factors"),
        (
            FactoredRows(np.zeros((1, 15, 20), "f4"), None, np.full(20, np.nan)),
            "w_out: columns: expected positive factors",
        ),
        (np.zeros((15, 20), "i1"), "w_out: expected 3 dimensions"),
    ],
)
def test_wrong_factors(rows, message):
    with pytest.raises(ufbert.InputError, match=message):
        cmm.PackedFFF(np.zeros((1, 15, 33)), np.zeros((1, 15)), rows, 3, weight_dtype="int8")


def test_options_by_position_are_taken_in_their_former_order_with_a_warning():
    case = testing.make_case(30, 1, 3, 16, 8)
    with pytest.warns(DeprecationWarning, match="pass weight_dtype, activation by name"):
        layer = cmm.PackedFFF(*case.arrays[1:], 3, "bfloat16", "relu")
    assert (layer.weight_dtype, layer.activation) == ("bfloat16", "relu")
    expected = layer(case.x, num_threads=1, return_path=True)
    with pytest.warns(DeprecationWarning, match="pass num_threads, return_path by name"):
        found = layer(case.x, 1, True)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    out = np.empty((30, 8), "f4")
    with pytest.warns(DeprecationWarning, match="pass num_threads, return_path, out by name"):
        assert layer(case.x, 1, False, out) is out
