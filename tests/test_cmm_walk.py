"""Where the schedule of the FFF kernels changes: a token's bits stay, whichever way many of them go down the trees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import bits, examples, on_every_isa

from ufbert import cmm, testing
from ufbert.int8 import FactoredRows

WEIGHT_DTYPES = ["float32", "bfloat16", "int8"]


def pack(case, weight_dtype):
    return cmm.PackedFFF(*case.arrays[1:], case.depth, weight_dtype=weight_dtype, activation=case.activation)


def everything(layer, x, num_threads=1):
    """The outputs as bits, the paths, the scores as bits."""
    y, path, scores = layer(x, num_threads=num_threads, return_path=True, return_scores=True)
    return bits(y), path, bits(scores)


def assert_same(results, expected):
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, other)


def by_pieces(layer, x, size):
    parts = [everything(layer, x[i : i + size]) for i in range(0, len(x), size)]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def paths_to_leaves(leaves, depth, width):
    """Tokens and a tree of which token i goes to leaf leaves[i]: level l's nodes look at column l alone."""
    levels = np.arange(depth + 1)
    x = np.where((leaves[:, None] >> (depth - 1 - levels).clip(0)) & 1, 1.0, -1.0).astype("f4")
    x = np.pad(x, ((0, 0), (0, width - depth - 1)))
    rng = np.random.default_rng(0)
    level_of_node = np.floor(np.log2(np.arange(1, 2 ** (depth + 1)))).astype(int)
    w_in = np.zeros((1, len(level_of_node), width), "f4")
    w_in[0, np.arange(len(level_of_node)), level_of_node] = 1
    w_out = rng.standard_normal(w_in.shape, np.float32)
    return testing.FFFCase(x, w_in, np.zeros(w_in.shape[:2], "f4"), w_out, depth, "gelu", "leaves")


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@examples(60)
@given(case=testing.fff_cases(), size=st.integers(1, 9), data=st.data())
def test_pieces_and_orders_have_the_bits_of_the_whole(weight_dtype, case, size, data):
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(case.x))
    for _ in on_every_isa():
        layer = pack(case, weight_dtype)
        whole = everything(layer, case.x)
        if len(case.x):
            assert_same(by_pieces(layer, case.x, size), whole)
        assert_same(everything(layer, np.asarray(case.x)[order]), [array[order] for array in whole])


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("tokens", [7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 130, 257])
def test_batch_sizes_around_the_switches(isa, weight_dtype, tokens):
    case = testing.make_case(tokens, 1, 8, 768, 96, seed=tokens)  # 511 rows: more than stay in cache, but for int8
    layer = pack(case, weight_dtype)
    assert_same(by_pieces(layer, case.x, 1), everything(layer, case.x))


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("depth", [0, 1, 6, 7, 8, 12])
def test_trees_around_the_switches(isa, weight_dtype, depth):
    case = testing.make_case(400, 1, depth, 400, 40, seed=depth)
    layer = pack(case, weight_dtype)
    assert_same(by_pieces(layer, case.x, 3), everything(layer, case.x))
    if weight_dtype == "float32":
        y, path = layer(case.x, return_path=True)
        testing.assert_fff_close(y, path, *case.arrays, depth)


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("out", [1, 31, 95, 96, 97, 128, 191, 192, 200])
def test_outputs_of_every_width(isa, weight_dtype, out):
    case = testing.make_case(41, 3, 4, 48, out, seed=out)
    layer = pack(case, weight_dtype)
    assert_same(by_pieces(layer, case.x, 1), everything(layer, case.x))


def test_factors_of_columns_come_in_once(isa):
    rng = np.random.default_rng(3)
    case = testing.make_case(50, 3, 5, 70, 200)
    w_in, w_out = (rng.integers(-128, 128, rows.shape).astype(np.int8) for rows in (case.w_in, case.w_out))
    scales = rng.uniform(0, 0.01, case.b_in.shape).astype("f4")
    rows_out = FactoredRows(w_out, scales, np.exp(rng.standard_normal(200)).astype("f4"))
    layer = cmm.PackedFFF(FactoredRows(w_in, scales), case.b_in, rows_out, 5, weight_dtype="int8")
    assert_same(by_pieces(layer, case.x, 1), everything(layer, case.x))
    widened = (
        w_in * scales[..., None].astype(float),
        case.b_in,
        w_out * scales[..., None].astype(float) * rows_out.columns,
    )
    y, path = layer(case.x, return_path=True)
    testing.assert_fff_close(y, path, case.x, *widened, 5)


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
def test_trees_in_tiles(isa, weight_dtype):
    """Several wide trees: their tokens come in tiles that stay in cache, and outputs are added up tree by tree."""
    case = testing.make_case(250, 3, 5, 2048, 2048)
    layer = pack(case, weight_dtype)
    whole = everything(layer, case.x)
    assert_same(by_pieces(layer, case.x, 50), whole)
    assert_same(everything(layer, case.x, num_threads=2), whole)


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_one_leaf_and_all_leaves(isa, weight_dtype, threads):
    depth, rng = 9, np.random.default_rng(1)
    for leaves in (np.full(600, 77), rng.permutation(2**depth), np.repeat(rng.permutation(2**depth), 2)):
        case = paths_to_leaves(leaves, depth, 448)
        layer = pack(case, weight_dtype)
        results = everything(layer, case.x, num_threads=threads)
        np.testing.assert_array_equal(results[1][:, 0, -1], leaves + 2**depth - 1)
        assert_same(by_pieces(layer, case.x, 5), results)


def test_huge_batches_past_the_caches(isa):
    """More tokens than a tile, more outputs than are kept in the caches; also to memory that is not aligned."""
    case = testing.make_case(9000, 1, 9, 416, 480)
    memory = np.empty(9000 * 480 + 1, "f4")
    for weight_dtype in WEIGHT_DTYPES:
        layer = pack(case, weight_dtype)
        whole = everything(layer, case.x)
        assert_same(by_pieces(layer, case.x, 997), whole)
        unaligned = layer(case.x, out=memory[1:].reshape(9000, 480), num_threads=2)
        np.testing.assert_array_equal(bits(unaligned), whole[0])


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@examples(40)
@given(case=testing.fff_cases(), offset=st.integers(1, 15))
def test_an_input_between_cache_lines_has_the_same_bits(weight_dtype, case, offset):
    """Inputs that vectors cross cache lines in are copied as they are first read."""
    tokens, width = case.x.shape
    memory = np.full(tokens * width + 16, np.nan, "f4")
    moved = memory[offset : offset + tokens * width].reshape(case.x.shape)
    moved[...] = case.x
    for _ in on_every_isa():
        layer = pack(case, weight_dtype)
        assert_same(everything(layer, moved), everything(layer, case.x))


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
@pytest.mark.parametrize("width", [384, 400, 768])
def test_a_large_batch_between_cache_lines_has_the_same_bits(isa, weight_dtype, width):
    case = testing.make_case(600, 1, 8, width, 96)  # sorted by subtree: each part copies anew
    memory = np.empty(600 * width + 20, "f4")
    layer, first = pack(case, weight_dtype), -memory.ctypes.data % 64 // 4
    aligned, moved = (memory[at : at + 600 * width].reshape(600, width) for at in (first, first + 3))
    aligned[...] = case.x
    expected = everything(layer, aligned, num_threads=2)
    moved[...] = np.array(case.x)
    assert_same(everything(layer, moved, num_threads=2), expected)


@pytest.mark.parametrize("weight_dtype", WEIGHT_DTYPES)
def test_nan_goes_left_and_stays_in_its_token(isa, weight_dtype):
    case = testing.make_case(300, 2, 6, 96, 192)
    expected = everything(pack(case, weight_dtype), case.x)
    case.x[::3] = np.nan
    layer = pack(case, weight_dtype)
    y, path = layer(case.x, return_path=True)
    assert np.isnan(y[::3]).all() and (path[::3] == 2 ** np.arange(7) - 1).all()
    others = np.arange(300) % 3 > 0
    assert_same([array[others] for array in everything(layer, case.x)], [array[others] for array in expected])
