"""Gradients: against float64 finite differences and the dense masked reference; bitwise for any threads."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lab import examples, on_every_isa

import ufbert
from ufbert import cmm, reference, testing


def gradients(case, dy, num_threads=None):
    _, path, scores = cmm.fff_forward(
        *case.arrays, case.depth, return_path=True, activation=case.activation, return_scores=True
    )
    arguments = (dy, *case.arrays, case.depth, path, scores)
    return cmm.fff_backward(*arguments, activation=case.activation, num_threads=num_threads), arguments


def in_float64(arguments):
    return [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in arguments]


def output_gradient(case, seed=0):
    shape = (len(case.x), case.w_out.shape[2])
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@examples(100)
@given(testing.fff_cases(max_depth=7, kinds=("normal", "integers", "zeros", "same", "strided")))
def test_matches_the_dense_masked_reference(case):
    dy = output_gradient(case)
    for _ in on_every_isa():
        results, arguments = gradients(case, dy)
        # The kernel's own path and scores, so that a tie is decided once.
        expected = reference.fff_backward(*in_float64(arguments), activation=case.activation)
        for result, exact in zip(results, expected, strict=True):
            assert result.dtype == np.float32
            np.testing.assert_allclose(result, exact, rtol=1e-4, atol=3e-5 * max(1.0, np.abs(exact).max(initial=0)))


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
def test_finite_differences(isa, activation):
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


def test_any_number_of_threads_gives_the_same_bits(isa):
    case = testing.make_case(700, 2, 5, 65, 40, seed=2)
    dy = output_gradient(case)
    first, _ = gradients(case, dy, 1)
    for num_threads in (2, 3, 8):
        for result, expected in zip(gradients(case, dy, num_threads)[0], first, strict=True):
            np.testing.assert_array_equal(result, expected)


def test_unvisited_nodes_have_no_gradient_and_do_not_matter(isa):
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


def drawn_levels(case, seed=0):
    return np.random.default_rng(seed).integers(0, case.depth, (len(case.x), len(case.w_in)))


@examples(60)
@given(testing.fff_cases(max_depth=7, kinds=("normal", "integers", "zeros", "same", "strided")), st.booleans())
def test_decisions_match_the_reference(case, costly):
    assume(case.depth > 0)
    dy, tried, switch_cost = output_gradient(case), drawn_levels(case), 0.5 * costly
    for _ in on_every_isa():
        _, arguments = gradients(case, dy)
        options = {"activation": case.activation, "tried": tried, "switch_cost": switch_cost}
        results = cmm.fff_backward(*arguments, **options)
        expected = reference.fff_backward(*in_float64(arguments), **options)
        for result, exact in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, exact, rtol=1e-4, atol=3e-5 * max(1.0, np.abs(exact).max(initial=0)))


def test_a_decision_s_gradient_is_that_of_the_loss_when_noise_is_added_to_its_score(isa):
    """One decision: right with probability Phi(score), so the expected loss can be differentiated in full."""
    case = testing.make_case(40, 1, 1, 9, 7, seed=5)
    dy = output_gradient(case)
    _, arguments = gradients(case, dy)
    result = cmm.fff_backward(*arguments, tried=np.zeros((40, 1), int))
    x, w_in, b_in, w_out = (array.astype(np.float64) for array in case.arrays)

    def expected_loss(bias):
        scores = x @ w_in[0].T + b_in[0] + [bias, 0, 0]  # (T, 3)
        losses = reference.ACTIVATIONS["gelu"](scores) * (dy @ w_out[0].T)
        right = np.array([0.5 + 0.5 * math.erf(score / math.sqrt(2)) for score in scores[:, 0]])
        return np.sum(losses[:, 0] + (1 - right) * losses[:, 1] + right * losses[:, 2])

    slope = (expected_loss(1e-5) - expected_loss(-1e-5)) / 2e-5
    assert abs(result[2][0, 0] - slope) < 1e-4 * max(1, abs(slope))


def test_a_tried_level_changes_the_gradients_of_its_own_nodes_alone(isa):
    case = testing.make_case(20, 3, 4, 16, 12, seed=6)
    dy = output_gradient(case)
    plain, arguments = gradients(case, dy)
    each = [cmm.fff_backward(*arguments, tried=np.full((20, 3), level), switch_cost=0.3) for level in range(4)]
    for gradient, *levels in zip(plain[1:3], *(one[1:3] for one in each), strict=True):
        first_levels = [level[:, : 2**case.depth - 1] for level in levels]
        assert not np.array_equal(first_levels[0], first_levels[1])
        for number, level in enumerate(first_levels):  # level `number` alone has changed
            nodes = np.arange(2**case.depth - 1)
            others = (nodes < 2**number - 1) | (nodes >= 2 ** (number + 1) - 1)
            np.testing.assert_array_equal(level[:, others], gradient[:, : 2**case.depth - 1][:, others])
    np.testing.assert_array_equal(plain[3], each[0][3])  # output rows have no decision


def test_decisions_are_the_same_bits_for_any_threads(isa):
    case = testing.make_case(700, 2, 5, 65, 40, seed=2)
    _, arguments = gradients(case, output_gradient(case))
    tried = drawn_levels(case)
    decisions = {"tried": tried, "switch_cost": 0.2}
    first = cmm.fff_backward(*arguments, num_threads=1, **decisions)
    for num_threads in (2, 3, 8):
        again = cmm.fff_backward(*arguments, num_threads=num_threads, **decisions)
        for result, expected in zip(again, first, strict=True):
            np.testing.assert_array_equal(result, expected)


def test_wrong_levels():
    case = testing.make_case(4, 2, 2, 8, 9)
    _, arguments = gradients(case, output_gradient(case))
    levels = np.zeros((4, 2), int)
    for tried, switch_cost, message in (
        (levels + 2, 0, "tried: expected levels from 0 to 1, got 2 to 2"),
        (levels - 1, 0, "tried: expected levels from 0 to 1, got -1"),
        (levels[:, :1], 0, r"tried: expected shape \(4, 2\)"),
        (levels.astype(float), 0, "tried: expected an integer array"),
        (levels, -1, "switch_cost: expected a number from 0"),
        (levels, float("nan"), "switch_cost: expected a number from 0"),
        (levels, "much", "switch_cost: expected a number from 0"),
    ):
        with pytest.raises(ufbert.UfbertError, match=message):
            cmm.fff_backward(*arguments, tried=tried, switch_cost=switch_cost)
    single = testing.make_case(4, 2, 0, 8, 9)
    _, arguments = gradients(single, output_gradient(single))
    with pytest.raises(ufbert.UfbertError, match="trees of depth 0 decide nothing"):
        cmm.fff_backward(*arguments, tried=levels)


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


def test_more_tokens_than_int32_counts_are_refused(monkeypatch):
    case = testing.make_case(5, 1, 2, 3, 3)
    dy, arguments = output_gradient(case), gradients(case, output_gradient(case))[1]
    monkeypatch.setattr(cmm, "MOST_TOKENS", 4)
    with pytest.raises(ufbert.InputError, match="rows of x: expected an integer from 0 to 4, got 5; split the batch"):
        cmm.fff_backward(dy, *arguments[1:])
