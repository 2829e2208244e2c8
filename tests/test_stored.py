"""Matrices as files store them: the kernels pack them to the same bits as their float32 values."""

import numpy as np
import pytest

from ufbert import dense
from ufbert.bfloat16 import narrow_bfloat16
from ufbert.cmm import PackedFFF
from ufbert.int8 import Int8Matrix
from ufbert.stored import StoredMatrix, stacked

compiled = pytest.mark.skipif(not dense.is_available(), reason="built without kernels")
PIECES = (5, 1, 34)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def stored(rng, dtype, width=21):
    rows = [rng.standard_normal((count, width)).astype(np.float32) for count in PIECES]
    if dtype == "bfloat16":
        return StoredMatrix(tuple(narrow_bfloat16(piece) for piece in rows))
    return StoredMatrix(tuple(piece.astype(dtype) for piece in rows))


def packed_bytes(part):
    return part.packed.__reduce__()[1][-1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_are_widened_as_they_are_asked_for(rng, dtype):
    matrix = stored(rng, dtype)
    assert matrix.shape == (40, 21) and matrix.nbytes == 40 * 21 * (4 if dtype == "float32" else 2)
    whole = matrix[:]
    assert whole.dtype == np.float32 and np.array_equal(matrix[np.array([39, 4, 5])], whole[[39, 4, 5]])


@compiled
@pytest.mark.parametrize("weight_dtype", dense.DTYPES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_pieces_are_packed_to_the_bits_of_one_float32_matrix(rng, isa, dtype, weight_dtype):
    matrix, bias = stored(rng, dtype), rng.standard_normal(40).astype(np.float32)
    found, expected = (dense.Linear(weight, bias, "gelu", weight_dtype) for weight in (matrix, matrix[:]))
    assert packed_bytes(found) == packed_bytes(expected)


@compiled
def test_every_float16_is_widened_to_its_value():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(256, 256)
    identity = np.eye(256, dtype=np.float32)
    finite = np.where(np.isfinite(every), every, np.float16(0))
    found = dense.Linear(StoredMatrix((finite,)), dtype="float32")(identity)
    np.testing.assert_array_equal(found.T, finite.astype(np.float32))
    memory = np.frombuffer(packed_bytes(dense.Linear(StoredMatrix((every,)), dtype="float32"))[-1], np.float32)
    values = memory[: every.size]
    assert np.isnan(values).sum() == np.isnan(every).sum()
    assert sorted(values[np.isinf(values)]) == [-np.inf, np.inf]


@compiled
@pytest.mark.parametrize("weight_dtype", dense.DTYPES)
@pytest.mark.parametrize(("trees", "depth"), [(1, 5), (3, 2), (2, 0)])
def test_trees_are_packed_from_float16_in_the_order_of_the_file(rng, weight_dtype, trees, depth):
    nodes, width, width_out = 2 ** (depth + 1) - 1, 33, 20
    w_in = rng.standard_normal((trees * nodes, width)).astype(np.float16).reshape(trees, nodes, width)
    b_in = rng.standard_normal((trees, nodes)).astype(np.float32)
    file = rng.standard_normal((width_out, trees * nodes)).astype(np.float16)
    w_out = file.T.reshape(trees, nodes, width_out)
    assert np.shares_memory(w_out, file)
    found = PackedFFF(w_in, b_in, w_out, depth, weight_dtype=weight_dtype)
    wide = w_in.astype(np.float32), b_in, w_out.astype(np.float32, order="C")
    assert packed_bytes(found) == packed_bytes(PackedFFF(*wide, depth, weight_dtype=weight_dtype))


def test_what_is_stored_alike_is_stacked_without_a_copy(rng):
    half, wide = stored(rng, "float16"), stored(rng, "float32")
    whole = stacked([half, half])
    assert isinstance(whole, StoredMatrix) and len(whole.pieces) == 6 and whole.pieces[0] is half.pieces[0]
    eight = Int8Matrix(np.ones((2, 21), np.int8), np.ones(2, np.float32))
    assert isinstance(stacked([eight, eight]), Int8Matrix)
    np.testing.assert_array_equal(stacked([half, wide, eight]), np.concatenate([half[:], wide[:], eight[:]]))
