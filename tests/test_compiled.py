"""A layer in one call is its parts one after another, bit for bit, on every instruction set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import examples

from ufbert import InputError, cmm, dense, layers
from ufbert.batch import Batch
from ufbert.checkpoint.pack import fuse

each_isa = pytest.mark.parametrize("isa", cmm.supported_isas())
pytestmark = pytest.mark.skipif(not dense.is_available(), reason="built without kernels")


@pytest.fixture(autouse=True)
def restore_isa():
    before = cmm.active_isa()
    yield
    cmm.use_isa(before)


def random_batch(rng, lengths, masked=False):
    zeros = [[0] * length for length in lengths]
    batch = Batch.from_sequences(zeros, zeros)
    if not masked:
        return batch
    attended = rng.random(batch.num_tokens) < 0.7
    return Batch(batch.input_ids, batch.token_type_ids, batch.position_ids, batch.cu_seqlens, attended)


def random_layer(rng, heads, size, inner, dtype, position, depth=None, bias=True):
    """`depth` for trees in the dense layer's place, which then have `inner` in number."""
    width = heads * size

    def array(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    def linear(out, into, activation=None):
        return layers.Linear(array(out, into), array(out) if bias else None, activation, dtype)

    def norm():
        return layers.Norm("layer_norm", 1 + array(width), array(width), 1e-5)

    attention = layers.SelfAttention(linear(3 * width, width), linear(width, width), heads, size**-0.5)
    if depth is None:
        feed_forward = layers.FeedForward(linear(inner, width, "gelu"), linear(width, inner))
    else:
        nodes = 2 ** (depth + 1) - 1
        trees = cmm.PackedFFF(array(inner, nodes, width), array(inner, nodes), array(inner, nodes, width), depth)
        feed_forward = layers.FastFeedForward(trees, array(width) if bias else None)
    return fuse(layers.EncoderLayer(attention, feed_forward, norm(), norm(), position))


@each_isa
@examples(40)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any),
    heads=st.integers(1, 4),
    size=st.sampled_from([8, 16, 32]) | st.integers(1, 40),  # whole panels, of one head or two, or none
    inner=st.integers(1, 90),
    dtype=st.sampled_from(dense.DTYPES),
    position=st.sampled_from(["pre", "post"]),
    masked=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_dense_layers(isa, lengths, heads, size, inner, dtype, position, masked, bias, seed):
    cmm.use_isa(isa)
    rng = np.random.default_rng(seed)
    layer, batch = random_layer(rng, heads, size, inner, dtype, position, bias=bias), random_batch(rng, lengths, masked)
    x = rng.standard_normal((batch.num_tokens, heads * size)).astype(np.float32)
    expected = layer.in_parts(x, batch)
    for threads in (None, 1, 2, 3, 5):
        found = layer.fused(x, batch, num_threads=threads)
        np.testing.assert_array_equal(found, expected)


@each_isa
@examples(20)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any),
    heads=st.integers(1, 3),
    size=st.integers(1, 40),
    trees=st.integers(1, 3),
    depth=st.integers(0, 4),
    position=st.sampled_from(["pre", "post"]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_layers_with_trees(isa, lengths, heads, size, trees, depth, position, bias, seed):
    cmm.use_isa(isa)
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, heads, size, trees, "float32", position, depth, bias)
    batch = random_batch(rng, lengths)
    x = rng.standard_normal((batch.num_tokens, heads * size)).astype(np.float32)
    expected = layer.in_parts(x, batch)
    for threads in (None, 1, 2, 3, 5):
        np.testing.assert_array_equal(layer.fused(x, batch, num_threads=threads), expected)


@each_isa
@pytest.mark.parametrize("dtype", dense.DTYPES)
@pytest.mark.parametrize("lengths", [[300], [128] * 12, [40, 3, 257, 0, 1] * 6], ids=["one", "many", "mixed"])
def test_large_batches_by_groups_and_by_columns(isa, dtype, lengths):
    """More rows than a chunk, more texts than a group, more groups than threads."""
    cmm.use_isa(isa)
    rng = np.random.default_rng(0)
    layer, batch = random_layer(rng, 2, 32, 100, dtype, "post"), random_batch(rng, lengths)
    x = rng.standard_normal((batch.num_tokens, 64)).astype(np.float32)
    expected = layer.in_parts(x, batch)
    for threads in (1, 2, 4):
        np.testing.assert_array_equal(layer.fused(x, batch, num_threads=threads), expected)


def test_no_rows():
    layer = random_layer(np.random.default_rng(0), 2, 8, 10, "float32", "post")
    assert layer.fused(np.zeros((0, 16), np.float32), random_batch(None, [])).shape == (0, 16)


def test_what_cannot_be_compiled_runs_in_parts():
    rng = np.random.default_rng(0)
    layer = random_layer(rng, 2, 8, 10, "float32", "post")
    scale = layers.Norm("rms_norm", np.ones(16, np.float32), None, 1e-5)
    other = fuse(layers.EncoderLayer(layer.attention, layer.feed_forward, scale, scale, "pre"))
    assert other.fused is None and "in parts: rms_norm has no kernel" in repr(other)
    x, batch = rng.standard_normal((7, 16)).astype(np.float32), random_batch(rng, [3, 4])
    np.testing.assert_array_equal(other(x, batch), other.in_parts(x, batch))


def test_rows_of_another_batch_are_refused():
    layer = random_layer(np.random.default_rng(0), 2, 8, 10, "float32", "post")
    with pytest.raises(InputError, match="a row for each of the batch's 7 tokens, got 4"):
        layer.fused(np.zeros((4, 16), np.float32), random_batch(None, [3, 4]))


@pytest.mark.skipif(len(cmm.supported_isas()) < 2, reason="one instruction set alone")
def test_parts_for_several_instruction_sets_are_refused():
    first, second = cmm.supported_isas()[:2]
    cmm.use_isa(first)
    layer = random_layer(np.random.default_rng(0), 2, 8, 10, "float32", "post")
    cmm.use_isa(second)
    other = random_layer(np.random.default_rng(0), 2, 8, 10, "float32", "post")
    with pytest.raises(InputError, match="expected all for one instruction set"):
        fuse(layers.EncoderLayer(layer.attention, other.feed_forward, layer.norm1, layer.norm2, "post"))
