"""Layers against the formulas, with the sparse feed-forward checked against the dense reference."""

import numpy as np
import pytest

from ufbert import cmm, layers, reference
from ufbert.batch import Batch

RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 12)).astype(np.float32)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def test_linear_with_and_without_bias():
    weight, bias = random(5, 12), random(5)
    np.testing.assert_allclose(layers.Linear(weight, bias)(X), X @ weight.T + bias, atol=1e-5)
    np.testing.assert_allclose(layers.Linear(weight)(X), X @ weight.T, atol=1e-5)


def test_gated_feed_forward_gates_the_first_half_with_the_second():
    dense_in, dense_out = layers.Linear(random(8, 12)), layers.Linear(random(12, 4))
    value, gate = np.split(X @ dense_in.weight.T, 2, axis=1)
    expected = (np.maximum(gate, 0) * value) @ dense_out.weight.T
    found = layers.GatedFeedForward(dense_in, dense_out, "relu")(X, np.zeros_like(X))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh"])
def test_fast_feed_forward_is_the_reference(activation):
    w_in, b_in, w_out = random(3, 15, 12), random(3, 15), random(3, 15, 12)
    trees = cmm.PackedFFF(w_in, b_in, w_out, 3, activation=activation)
    found = layers.FastFeedForward(trees)(X, X)
    expected = X + reference.fff_forward(X, w_in, b_in, w_out, 3, activation=activation)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_output_bias_is_added_to_the_trees():
    trees, bias = cmm.PackedFFF(random(3, 15, 12), random(3, 15), random(3, 15, 12), 3), random(12)
    expected = layers.FastFeedForward(trees)(X, X) + bias
    np.testing.assert_allclose(layers.FastFeedForward(trees, bias)(X, X), expected, atol=1e-5)


def test_a_tree_of_depth_0_for_each_neuron_is_a_dense_layer():
    w_in, b_in, w_out = random(20, 1, 12), random(20, 1), random(20, 1, 12)
    dense_in = layers.Linear(w_in[:, 0].copy(), b_in[:, 0].copy(), "gelu")
    dense = layers.FeedForward(dense_in, layers.Linear(w_out[:, 0].T.copy()))
    trees = cmm.PackedFFF(w_in, b_in, w_out, 0)
    np.testing.assert_allclose(layers.FastFeedForward(trees)(X, X), dense(X, X), atol=1e-4)


def test_embeddings_sum_their_tables_without_touching_them():
    word, position, token_type = random(9, 12), random(4, 12), random(2, 12)
    batch = Batch.from_sequences([[1, 8], [3]], [[0, 1], [1]])
    before = word.copy()
    expected = word[[1, 8, 3]] + position[[0, 1, 0]] + token_type[[0, 1, 1]]
    np.testing.assert_allclose(layers.Embeddings(word, position, token_type, None)(batch), expected, atol=1e-6)
    np.testing.assert_array_equal(layers.Embeddings(word, None, None, None)(batch), word[[1, 8, 3]])
    np.testing.assert_array_equal(word, before)
    half = layers.Embeddings(word.astype(np.float16), None, None, None)(batch)
    assert half.dtype == np.float32


def test_the_norm_stands_where_it_should():
    identity = layers.Norm("layer_norm", np.ones(12, np.float32), np.zeros(12, np.float32), 1e-12)
    attention = layers.SelfAttention(layers.Linear(random(36, 12)), None, 3, 0.5)
    double = lambda x, residual: residual + 2 * x  # noqa: E731
    batch = Batch.from_sequences([[1] * 7], [[0] * 7])
    middle = attention(identity(X), batch, X)
    pre = layers.EncoderLayer(attention, double, identity, identity, "pre")(X, batch)
    np.testing.assert_allclose(pre, middle + 2 * identity(middle), atol=1e-5)
    middle = identity(attention(X, batch, X))
    post = layers.EncoderLayer(attention, double, identity, identity, "post")(X, batch)
    np.testing.assert_allclose(post, identity(3 * middle), atol=1e-5)
