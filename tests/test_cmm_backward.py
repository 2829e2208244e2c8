"""Gradients: against float64 finite differences and the dense masked reference; bitwise for any threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from test_cmm import isa, on_every_isa  # noqa: F401

import ufbert
from ufbert import cmm, reference, testing


def gradients(case, dy, num_threads=None):
    _, path, scores = cmm.fff_forward(
        *case.arrays, case.depth, return_path=True, activation=case.activation, return_scores=True
    )
    arguments = (dy, *case.arrays, case.depth, path, scores, case.activation)
    return cmm.fff_backward(*arguments, num_threads), arguments


def in_float64(arguments):
    return [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in arguments]


def output_gradient(case, seed=0):
    shape = (len(case.x), case.w_out.shape[2])
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(testing.fff_cases(max_depth=7, kinds=("normal", "integers", "zeros", "same", "strided")))
def test_matches_the_dense_masked_reference(case):
    dy = output_gradient(case)
    for _ in on_every_isa():
        results, arguments = gradients(case, dy)
        # The kernel's own path and scores, so that a tie is decided once.
        expected = reference.fff_backward(*in_float64(arguments))
        for result, exact in zip(results, expected, strict=True):
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, exact, rtol=1e-4, atol=3e-5 * max(1.0, np.abs(exact).max(initial=0)))


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_finite_differences(isa, activation):  # noqa: F811
    case = testing.make_case(7, 2, 2, 6, 5, activation=activation, seed=1)
    dy = output_gradient(case)
    results, arguments = gradients(case, dy)
    assert np.abs(arguments[7]).min() > 1e-4  # a step across a decision would differentiate a jump
    arrays = [array.astype(np.float64) for array in case.arrays]
    for array, result in zip(arrays, results, strict=True):
        for place in np.ndindex(array.shape):
            value, losses = array[place], []
            for step in (1e-6, -1e-6):
                array[place] = value + step
                losses.append(np.sum(dy * reference.fff_walk(*arrays, 2, activation=activation)))
            array[place] = value
            assert abs(result[place] - (losses[0] - losses[1]) / 2e-6) < 2e-5


def test_any_number_of_threads_gives_the_same_bits(isa):  # noqa: F811
    case = testing.make_case(700, 2, 5, 65, 40, seed=2)
    dy = output_gradient(case)
    first, _ = gradients(case, dy, 1)
    for num_threads in (2, 3, 8):
        for result, expected in zip(gradients(case, dy, num_threads)[0], first, strict=True):
            np.testing.assert_array_equal(result, expected)


def test_unvisited_nodes_have_no_gradient_and_do_not_matter(isa):  # noqa: F811
    case = testing.make_case(10, 1, 6, 33, 17, seed=3)
    dy = output_gradient(case)
    results, arguments = gradients(case, dy)
    visited = np.unique(arguments[6])
    for gradient in results[1:]:
        assert not np.delete(gradient[0], visited, axis=0).any()
        assert gradient[0, visited].any()
    again, _ = gradients(testing.poison_unvisited(case, arguments[6]), dy)
    for result, expected in zip(again, results, strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("tokens", [0, 1])
def test_few_tokens(tokens):
    case = testing.make_case(tokens, 1, 3, 8, 9)
    results, _ = gradients(case, output_gradient(case))
    assert [result.shape for result in results] == [array.shape for array in case.arrays]


def test_wrong_arguments():
    case = testing.make_case(4, 1, 2, 8, 9)
    dy = output_gradient(case)
    _, path, scores = cmm.fff_forward(*case.arrays, 2, return_path=True, return_scores=True)
    for change, message in (
        ({"dy": dy[:, :8]}, r"dy: expected shape \(4, 9\)"),
        ({"path": path[:, :, :2]}, r"path: expected shape \(4, 1, 3\)"),
        ({"path": path + 5}, "path: expected nodes from 0 to 6"),
        ({"path": path - 1}, "path: expected nodes from 0 to 6"),
        ({"path": path.astype(float)}, "path: expected an integer array"),
        ({"scores": scores[:3]}, r"scores: expected shape \(4, 1, 3\)"),
    ):
        arguments = {"dy": dy, "path": path, "scores": scores} | change
        with pytest.raises(ufbert.UfbertError, match=message):
            cmm.fff_backward(arguments["dy"], *case.arrays, 2, arguments["path"], arguments["scores"])
