"""The oracle, checked against a token-by-token loop and against finite differences."""

import math

import numpy as np
import pytest

from ufbert import reference, testing


def one_token(x, w_in, b_in, w_out, depth):
    """The definition, with no array operation but the dot product."""
    y, path = np.zeros(w_out.shape[2]), []
    for tree in range(len(w_in)):
        node = 0
        for _ in range(depth + 1):
            score = float(w_in[tree, node] @ x + b_in[tree, node])
            path.append(node)
            y += 0.5 * score * (1 + math.erf(score / math.sqrt(2))) * w_out[tree, node]
            node = 2 * node + 1 + (score > 0)
    return y, path


def float64_arrays(case):
    return [array.astype(np.float64) for array in case.arrays]


@pytest.mark.parametrize("forward", [reference.fff_forward, reference.fff_walk])
@pytest.mark.parametrize(("trees", "depth"), [(1, 0), (1, 5), (3, 2)])
def test_forward_is_the_definition(forward, trees, depth):
    arrays = float64_arrays(testing.make_case(11, trees, depth, 9, 5))
    y, path, scores = forward(*arrays, depth, return_path=True, return_scores=True)
    for token, x in enumerate(arrays[0]):
        expected, visited = one_token(x, *arrays[1:], depth)
        np.testing.assert_allclose(y[token], expected, rtol=1e-12, atol=1e-14)
        assert path[token].ravel().tolist() == visited
        first = [arrays[1][tree, 0] @ x + arrays[2][tree, 0] for tree in range(trees)]
        np.testing.assert_allclose(scores[token, :, 0], first, rtol=1e-12)


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_derivatives_are_the_activations_slopes(activation):
    x, step = np.linspace(-6, 6, 242), 1e-6
    slope = (reference.ACTIVATIONS[activation](x + step) - reference.ACTIVATIONS[activation](x - step)) / (2 * step)
    np.testing.assert_allclose(reference.DERIVATIVES[activation](x), slope, atol=1e-8)


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_backward_against_finite_differences(activation):
    case = testing.make_case(6, 2, 2, 5, 4, seed=1)
    arrays = float64_arrays(case)
    dy = np.random.default_rng(2).standard_normal((6, 4))
    _, path, scores = reference.fff_forward(*arrays, 2, return_path=True, activation=activation, return_scores=True)
    # A step that crossed a decision would differentiate a jump.
    assert np.abs(scores).min() > 1e-4
    gradients = reference.fff_backward(dy, *arrays, 2, path, scores, activation)
    for array, gradient in zip(arrays, gradients, strict=True):
        numeric = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            value = array[place]
            losses = []
            for step in (1e-6, -1e-6):
                array[place] = value + step
                losses.append(np.sum(dy * reference.fff_forward(*arrays, 2, activation=activation)))
            array[place] = value
            numeric[place] = (losses[0] - losses[1]) / 2e-6
        np.testing.assert_allclose(gradient, numeric, atol=2e-8)


def test_bfloat16_rounds_to_nearest_even():
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -0.0, np.inf, np.nan, 3.4e38], np.float32)
    expected = np.array([1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -0.0, np.inf, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(reference.round_to_bfloat16(values), expected)
