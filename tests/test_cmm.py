"""The forward kernels on every instruction set of this machine, against the reference."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from lab import bits, examples, on_every_isa

import ufbert
from ufbert import InputError, cmm, reference, testing


def forward(case, **options):
    return cmm.fff_forward(*case.arrays, case.depth, activation=case.activation, **options)


@examples(250)
@given(testing.fff_cases(), st.sampled_from([1, 2, 5]))
@example(testing.make_case(1, 1, 12, 33, 9), 1)
@example(testing.make_case(300, 1, 9, 40, 40), 2)
@example(testing.make_case(70, 8, 1, 97, 97), 2)
@example(testing.make_case(260, 1, 3, 768, 384), 2)
@example(testing.make_case(20, 8, 6, 384, 384), 1)
@example(testing.make_case(0, 3, 2, 5, 5), 2)
@example(testing.make_case(400, 1, 4, 96, 33, kind="same"), 2)
def test_matches_the_reference(case, num_threads):
    for _ in on_every_isa():
        y, path = forward(case, num_threads=num_threads, return_path=True)
        assert y.dtype == np.float32 and path.dtype == np.int32
        testing.assert_fff_close(y, path, *case.arrays, case.depth, case.activation)


@pytest.mark.parametrize("trees", [1, 2, 3, 8])
@pytest.mark.parametrize("depth", range(13))
def test_all_trees_and_depths(isa, trees, depth):
    case = testing.make_case(9, trees, depth, 17, 19, seed=depth)
    testing.assert_fff_close(*forward(case, return_path=True), *case.arrays, depth)


@pytest.mark.parametrize("width", [*range(1, 98), 384, 768])
def test_all_widths(isa, width):
    case = testing.make_case(19, 1, 3, width, 98 - width if width < 98 else width, seed=width)
    testing.assert_fff_close(*forward(case, return_path=True), *case.arrays, 3)


@examples(100)
@given(testing.fff_cases(kinds=("normal", "integers", "zeros", "large", "nonfinite")), st.data())
def test_a_token_has_the_same_bits_in_any_company(case, data):
    order = np.array(data.draw(st.permutations(range(len(case.x)))), int)
    cut = data.draw(st.integers(0, len(case.x)))
    for _ in on_every_isa():
        whole = forward(case, num_threads=1, return_path=True, return_scores=True)
        x, *weights = case.arrays

        def part(tokens, num_threads, weights=weights):
            return cmm.fff_forward(
                tokens,
                *weights,
                case.depth,
                num_threads=num_threads,
                return_path=True,
                activation=case.activation,
                return_scores=True,
            )

        for result, expected in zip(part(x[order], 3), whole, strict=True):
            np.testing.assert_array_equal(bits(result), bits(expected[order]))
        for first, second, expected in zip(part(x[:cut], 2), part(x[cut:], 1), whole, strict=True):
            np.testing.assert_array_equal(bits(np.concatenate([first, second])), bits(expected))


@pytest.mark.parametrize("tokens", [1, 7, 129, 3000])
def test_large_batches_are_the_single_tokens(isa, tokens):
    """Over the sizes where work is split, sorted and shared differently."""
    case = testing.make_case(tokens, 1, 9, 70, 64, seed=tokens)
    y, path, scores = forward(case, num_threads=2, return_path=True, return_scores=True)
    for token in range(0, tokens, max(1, tokens // 40)):
        alone = cmm.fff_forward(
            case.x[token : token + 1], *case.arrays[1:], 9, num_threads=1, return_path=True, return_scores=True
        )
        for result, expected in zip(alone, (y, path, scores), strict=True):
            np.testing.assert_array_equal(result[0], expected[token])


def test_more_tokens_than_a_tile(isa):
    case = testing.make_case(9001, 2, 2, 8, 5, seed=4)
    testing.assert_fff_close(*forward(case, num_threads=1, return_path=True), *case.arrays, 2)


@examples(60)
@given(testing.fff_cases(kinds=("normal", "integers", "nonfinite", "same")), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_unvisited_nodes_do_not_matter(case, poison):
    for _ in on_every_isa():
        y, path = forward(case, return_path=True)
        again = forward(testing.poison_unvisited(case, path, poison), return_path=True)
        np.testing.assert_array_equal(bits(again[0]), bits(y))
        np.testing.assert_array_equal(again[1], path)


def test_zero_and_nan_go_left(isa):
    w_in, b_in, w_out = np.zeros((1, 7, 3), "f4"), np.zeros((1, 7), "f4"), np.ones((1, 7, 2), "f4")
    x = np.array([[0, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0]], "f4")
    _, path = cmm.fff_forward(x, w_in, b_in, w_out, 2, return_path=True)
    assert path[:, 0].tolist() == [[0, 1, 3]] * 3
    b_in[0, 0] = 1e-45  # the smallest positive float is positive
    assert cmm.fff_forward(x[:1], w_in, b_in, w_out, 2, return_path=True)[1][0, 0].tolist() == [0, 2, 5]


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_activations(isa, activation):
    """One node, weight 1: the layer is the activation."""
    x = np.concatenate([np.linspace(-30, 30, 60_001), [0.0, -0.0, 1e-30, -1e-30, 100, -100, 1e30]])
    x = x.astype("f4")[:, None]
    one = np.ones((1, 1, 1), "f4")
    y = cmm.fff_forward(x, one, np.zeros((1, 1), "f4"), one, 0, activation=activation)
    with np.errstate(over="ignore"):
        expected = reference.ACTIVATIONS[activation](x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=3e-7, atol=2e-7)


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_activations_at_infinity_and_nan(isa, activation):
    x, one = np.array([[np.inf], [-np.inf], [np.nan]], "f4"), np.ones((1, 1, 1), "f4")
    y = cmm.fff_forward(x, one, np.zeros((1, 1), "f4"), one, 0, activation=activation)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y, reference.ACTIVATIONS[activation](x))


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
@pytest.mark.parametrize("output_bias", [False, True])
def test_leaf_layer(isa, activation, output_bias):
    rng = np.random.default_rng(5)
    for depth, width, leaf, out, tokens in ((0, 5, 3, 2, 4), (3, 33, 17, 40, 50), (2, 97, 130, 31, 9)):
        shapes = ((tokens, width), (2**depth - 1, width), (2**depth - 1,), (2**depth, width, leaf), (2**depth, leaf))
        shapes += ((2**depth, leaf, out), (2**depth, out))
        arrays = [rng.standard_normal(shape).astype("f4") for shape in shapes]
        result = cmm.leaf_fff_forward(*arrays, activation=activation, output_bias=output_bias, num_threads=2)
        exact = [array.astype(np.float64) for array in arrays]
        exact[-1] = exact[-1] if output_bias else None
        expected = reference.leaf_fff_forward(*exact, depth, activation=activation)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_introspection():
    case = testing.make_case(200, 2, 4, 16, 16)
    _, path, scores = forward(case, return_path=True, return_scores=True)
    visits = cmm.node_visits(path, 31)
    assert visits.shape == (2, 31) and (visits.sum(axis=1) == 200 * 5).all() and (visits[:, 0] == 200).all()
    assert cmm.smallest_margin(scores) == np.abs(scores[:, :, :4]).min()
    assert cmm.smallest_margin(scores[:, :, :1]) == np.inf
    np.testing.assert_array_equal(scores[:, :, :4] > 0, path[:, :, 1:] % 2 == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((3, 4), "f4")}, r"x: expected shape \(T, 5\)"),
        ({"x": np.zeros(5, "f4")}, "x: expected 2 dimensions"),
        ({"x": np.zeros((3, 5), "c8")}, "x: expected an array of float32, got dtype complex64"),
        ({"w_in": np.zeros((2, 6, 5), "f4")}, r"w_in: expected shape \(2, 7, 5\)"),
        ({"b_in": np.zeros((1, 7), "f4")}, r"b_in: expected shape \(2, 7\)"),
        ({"w_out": np.zeros((2, 5, 3), "f4")}, r"w_out: expected shape \(2, 7, 3\)"),
        ({"depth": -1}, "depth: expected an integer from 0 to 24, got -1"),
        ({"depth": 2.0}, "depth: expected an integer"),
        ({"activation": "swish"}, "activation: expected one of gelu, relu, silu, tanh, got 'swish'"),
        ({"num_threads": 0}, "num_threads: expected a positive integer, got 0"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {
        "x": np.zeros((3, 5), "f4"),
        "w_in": np.zeros((2, 7, 5), "f4"),
        "b_in": np.zeros((2, 7), "f4"),
        "w_out": np.zeros((2, 7, 3), "f4"),
        "depth": 2,
    }
    with pytest.raises(ufbert.UfbertError, match=message):
        cmm.fff_forward(**(arguments | change))


@pytest.mark.parametrize("depth", ["1", None, [1], 1.0, True, np.True_, np.float32(1), np.array([1]), -1, 25, "x"])
def test_depth_is_an_integer_in_range(depth):
    with pytest.raises(InputError, match="depth: expected an integer from 0 to 24"):
        cmm.fff_forward(np.ones((2, 3)), np.ones((1, 3, 3)), np.ones((1, 3)), np.ones((1, 3, 3)), depth)


def test_ragged_lists_and_other_activations_are_refused():
    layer = np.ones((1, 3, 3)), np.ones((1, 3)), np.ones((1, 3, 3)), 1
    with pytest.raises(InputError, match="x: expected an array of float32"):
        cmm.fff_forward([[1, 2, 3], [1]], *layer)
    for activation in ([], None, "elu"):
        with pytest.raises(InputError, match="activation: expected one of"):
            cmm.fff_forward(np.ones((2, 3)), *layer, activation=activation)


def test_any_number_of_threads_may_be_asked_for():
    rng = np.random.default_rng(0)
    x, w_in, w_out = (rng.standard_normal(shape).astype(np.float32) for shape in ((20_000, 64), (1, 3, 64), (1, 3, 64)))
    b_in = np.zeros((1, 3), np.float32)
    expected = cmm.fff_forward(x, w_in, b_in, w_out, 1, num_threads=1)
    for num_threads in (1_000, 100_000, 2**40):
        np.testing.assert_array_equal(cmm.fff_forward(x, w_in, b_in, w_out, 1, num_threads=num_threads), expected)


@pytest.mark.parametrize("state_dict", [None, {}, {"depth": 1}])
def test_state_dicts_of_leaf_layers_are_checked(state_dict):
    with pytest.raises(InputError, match="state dict of a leaf FFF"):
        cmm.load_leaf_fff(state_dict)
