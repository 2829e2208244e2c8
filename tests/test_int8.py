"""Matrices in 8 bits by themselves; models of them are in test_convert and checkpoint/test_weights_in_8_bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufbert.dense import Linear
from ufbert.int8 import Int8Matrix, quantize, quantize_levelled
from ufbert.stored import stacked


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.sampled_from([1e-30, 1.0, 1e30]))
def test_errors_are_half_a_factor_at_most_and_rounding_again_changes_nothing(rows, columns, seed, size):
    matrix = (np.random.default_rng(seed).standard_normal((rows, columns)) * size).astype(np.float32)
    found = quantize(matrix)
    assert (found.values.dtype, found.scale.dtype, found.scale.shape) == (np.int8, np.float32, (rows,))
    assert (np.abs(found[:] - matrix) <= 0.5001 * found.scale[:, None]).all()
    assert (np.abs(found.values).max(axis=1) == 127).all()
    again = quantize(found[:])
    np.testing.assert_array_equal(again.values, found.values)
    np.testing.assert_allclose(again.scale, found.scale, rtol=3e-7)


@pytest.mark.parametrize("matrix", [np.zeros((3, 4)), np.zeros((3, 0)), np.zeros((0, 4)), np.full((1, 2), 1e-45)])
def test_rows_of_nothing(matrix):
    found = quantize(matrix.astype(np.float32))
    assert found.shape == matrix.shape
    np.testing.assert_array_equal(found.values, 0)
    np.testing.assert_array_equal(found[:], 0)


def test_rows_are_looked_up_in_any_shape():
    found = Int8Matrix(np.array([[1, -2], [3, 127]], np.int8), np.array([0.5, 2], np.float32))
    np.testing.assert_array_equal(found[:], [[0.5, -1], [6, 254]])
    np.testing.assert_array_equal(found[np.array([1, 1, 0])], [[6, 254], [6, 254], [0.5, -1]])
    assert found[np.array([[0], [1]])].shape == (2, 1, 2)


def test_factors_of_columns_stand_beside_those_of_rows():
    found = Int8Matrix(np.array([[1, -2], [3, 127]], np.int8), np.array([0.5, 2], "f4"), np.array([1, 10], "f4"))
    np.testing.assert_array_equal(found[:], [[0.5, -10], [6, 2540]])
    np.testing.assert_array_equal(found[np.array([1])], [[6, 2540]])
    np.testing.assert_array_equal(found.transposed()[:], found[:].T)
    plain = Int8Matrix(found.values, found.scale)
    np.testing.assert_array_equal(plain.transposed()[:], plain[:].T)
    np.testing.assert_array_equal(stacked([found, plain]), np.concatenate([found[:], plain[:]]))


def test_a_large_column_does_not_cost_the_others_their_digits():
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype("f4")
    rows[:, 3] *= 100
    lost = np.abs(quantize_levelled(rows)[:] - rows).max(axis=0)
    assert (lost < np.abs(rows).max(axis=0) / 50).all()
    assert np.abs(quantize(rows)[:] - rows).max(axis=0)[0] > 0.2  # one factor for each row alone


def test_a_linear_layer_with_factors_of_columns_is_rounded_anew():
    found = Int8Matrix(np.array([[1, -2], [3, 127]], np.int8), np.array([0.5, 2], "f4"), np.array([1, 10], "f4"))
    x = np.array([[0.0, 1.0]], "f4")
    for dtype in ("float32", "int8"):
        np.testing.assert_allclose(Linear(found, None, None, dtype)(x), x @ found[:].T, rtol=0.01, atol=1e-6)
