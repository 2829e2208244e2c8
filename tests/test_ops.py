import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from ufbert import ops

X = np.concatenate([np.linspace(-12, 12, 20_001), [-np.inf, np.inf, 0.0, -0.0, 1e-30, -1e30, 1e30]]).astype(np.float32)
EXACT = {
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * special.expit(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * special.expit(x),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activations_in_float64(name):
    finite = X[np.isfinite(X)]
    with np.errstate(over="ignore", invalid="ignore"):
        found, expected = ops.ACTIVATIONS[name](finite.copy()), EXACT[name](finite.astype(np.float64))
    keep = np.isfinite(expected)
    np.testing.assert_allclose(found[keep], expected[keep], rtol=1e-6, atol=5e-7)


def test_gelu_of_infinity_and_nan():
    y = ops.gelu(np.array([np.inf, -np.inf, np.nan], np.float32))
    assert y[0] == np.inf and y[1] == 0 and np.isnan(y[2])


@pytest.mark.parametrize("name", ops.ACTIVATIONS)
def test_activations_take_any_shape_and_stride(name):
    x = np.random.default_rng(0).standard_normal((6, 70)).astype(np.float32)
    whole = ops.ACTIVATIONS[name](x.copy())
    np.testing.assert_array_equal(ops.ACTIVATIONS[name](np.asfortranarray(x)[::2]), whole[::2])


def test_norms_in_float64():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((9, 33)) * 7 + 100).astype(np.float32)
    weight, bias = rng.standard_normal((2, 33)).astype(np.float32)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * weight + bias
    np.testing.assert_allclose(ops.numpy_layer_norm(x, weight, bias, 1e-5), expected, atol=2e-5)
    expected = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(ops.rms_norm(x, weight, 1e-5), expected, atol=1e-5)
    expected = wide * 0.7 / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(ops.scale_norm(x, np.float32(0.7), 1e-5), expected, atol=1e-6)
    assert not ops.scale_norm(np.zeros((1, 4), np.float32), np.float32(1), 1e-5).any()


def naive_attention(qkv, cu_seqlens, num_heads, scale, attended):
    """Query by query in float64."""
    width = qkv.shape[1] // 3
    size = width // num_heads
    q, k, v = (part.reshape(-1, num_heads, size).astype(np.float64) for part in np.split(qkv, 3, axis=1))
    out = np.zeros((len(qkv), num_heads, size))
    for first, last in zip(cu_seqlens[:-1], cu_seqlens[1:], strict=True):
        for row in range(first, last):
            for head in range(num_heads):
                scores = k[first:last, head] @ q[row, head] * scale + np.where(attended[first:last], 0, -10_000)
                out[row, head] = special.softmax(scores) @ v[first:last, head]
    return out.reshape(len(qkv), width)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 7), max_size=6), st.integers(1, 3), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_attention(lengths, num_heads, size, masked, seed):
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths))).astype(int)
    qkv = rng.standard_normal((cu_seqlens[-1], 3 * num_heads * size)).astype(np.float32) * 3
    attended = rng.random(cu_seqlens[-1]) < 0.7 if masked else np.ones(cu_seqlens[-1], bool)
    found = ops.numpy_attention(qkv, cu_seqlens, num_heads, size**-0.5, attended if masked else None)
    expected = naive_attention(qkv, cu_seqlens, num_heads, size**-0.5, attended)
    # Where all keys of a text are masked, float32 keeps only three digits of a score beside -10,000.
    alone = np.repeat([attended[a:b].any() for a, b in zip(cu_seqlens, cu_seqlens[1:], strict=False)], lengths)
    np.testing.assert_allclose(found[alone.astype(bool)], expected[alone.astype(bool)], atol=2e-5)
    assert np.isfinite(found).all()


def test_attention_in_parts_is_attention_at_once(monkeypatch):
    qkv = np.random.default_rng(0).standard_normal((60, 24)).astype(np.float32)
    cu_seqlens = np.arange(0, 61, 5)
    whole = ops.numpy_attention(qkv, cu_seqlens, 2, 0.5)
    monkeypatch.setattr(ops, "_SCORES", 120)
    np.testing.assert_allclose(ops.numpy_attention(qkv, cu_seqlens, 2, 0.5), whole, atol=1e-6)
