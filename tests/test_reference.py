"""The oracle, checked against a token-by-token loop and against finite differences."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import examples
from scipy import special

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
def test_backward_against_finite_differences(activation):
    case = testing.make_case(6, 2, 2, 5, 4, seed=1)
    arrays = float64_arrays(case)
    dy = np.random.default_rng(2).standard_normal((6, 4))
    _, path, scores = reference.fff_forward(*arrays, 2, return_path=True, activation=activation, return_scores=True)
    # A step that crossed a decision would differentiate a jump.
    assert np.abs(scores).min() > 1e-4
    gradients = reference.fff_backward(dy, *arrays, 2, path, scores, activation=activation)
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


def test_norms_in_float64():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((9, 33)) * 7 + 100).astype(np.float32)
    weight, bias = rng.standard_normal((2, 33)).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * weight + bias
    np.testing.assert_allclose(reference.layer_norm(x, weight, bias, 1e-5), expected, atol=2e-5)
    expected = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(reference.rms_norm(x, weight, 1e-5), expected, atol=1e-5)
    expected = wide * 0.7 / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(reference.scale_norm(x, np.float32(0.7), 1e-5), expected, atol=1e-6)
    assert not reference.scale_norm(np.zeros((1, 4), np.float32), np.float32(1), 1e-5).any()


def naive_attention(qkv, cu_seqlens, num_heads, scale, attended):
    """Query by query in float64."""
    width = qkv.shape[1] // 3
    size = width // num_heads
    q, k, v = (part.reshape(-1, num_heads, size).astype(np.float64) for part in np.split(qkv, 3, axis=1))
    out = np.zeros((len(qkv), num_heads, size))
    for first, last in pairwise(cu_seqlens):
        for row in range(first, last):
            for head in range(num_heads):
                scores = k[first:last, head] @ q[row, head] * scale + np.where(attended[first:last], 0, -10_000)
                out[row, head] = special.softmax(scores) @ v[first:last, head]
    return out.reshape(len(qkv), width)


@examples(40)
@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_attention(lengths, num_heads, size, masked, seed):
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(int)
    qkv = rng.standard_normal((cu_seqlens[-1], 3 * num_heads * size)).astype(np.float32) * 3
    attended = rng.random(cu_seqlens[-1]) < 0.7 if masked else np.ones(cu_seqlens[-1], bool)
    found = reference.attention(qkv, cu_seqlens, num_heads, size**-0.5, attended if masked else None)
    expected = naive_attention(qkv, cu_seqlens, num_heads, size**-0.5, attended)
    # Where all keys of a text are masked, float32 keeps only three digits of a score beside -10,000.
    alone = np.repeat([attended[a:b].any() for a, b in pairwise(cu_seqlens)], lengths)
    np.testing.assert_allclose(found[alone.astype(bool)], expected[alone.astype(bool)], atol=2e-5)
    assert np.isfinite(found).all()


def test_attention_with_a_bias_by_distance():
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 4, 6)).astype(np.float32)  # four tokens, two heads of three columns
    bias = rng.standard_normal((2, 9)).astype(np.float32)  # from -4 to 4
    expected = np.zeros((4, 6))
    for head, columns in enumerate((slice(0, 3), slice(3, 6))):
        for query in range(4):
            scores = [q[query, columns] @ k[key, columns] * 0.5 + bias[head, 4 + key - query] for key in range(4)]
            expected[query, columns] = special.softmax(scores) @ v[:, columns]
    found = reference.attention(np.hstack([q, k, v]), np.array([0, 4]), 2, 0.5, None, bias)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rotated_queries_and_keys_meet_by_their_distance():
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 8)).astype(np.float32)
    angles = np.arange(12)[:, None] * np.array([1.0, 0.1, 0.01, 0.001])
    rotations = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    turned = [reference.rotate(np.tile(x, (12, 1)), rotations) for x in (q, k)]
    scores = turned[0] @ turned[1].T
    np.testing.assert_allclose(scores[:-3, :-3], scores[3:, 3:], atol=1e-5)
    pair = q[0] + 1j * q[4]  # the first pair as a complex number
    np.testing.assert_allclose(turned[0][:, 0] + 1j * turned[0][:, 4], pair * np.exp(1j * np.arange(12)), atol=1e-5)


def test_attention_in_parts_is_attention_at_once(monkeypatch):
    qkv = np.random.default_rng(0).standard_normal((60, 24)).astype(np.float32)
    cu_seqlens = np.arange(0, 61, 5)
    whole = reference.attention(qkv, cu_seqlens, 2, 0.5)
    monkeypatch.setattr(reference, "SCORES_AT_ONCE", 120)
    np.testing.assert_allclose(reference.attention(qkv, cu_seqlens, 2, 0.5), whole, atol=1e-6)
