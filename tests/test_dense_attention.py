"""Attention of the dense kernels against the reference, on every instruction set that the machine has."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab import examples

from ufbert import cmm, dense, reference

each_isa = pytest.mark.parametrize("isa", cmm.supported_isas())


@pytest.fixture(autouse=True)
def restore_isa():
    before = cmm.active_isa()
    yield
    cmm.use_isa(before)


@each_isa
@examples(30)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    num_heads=st.integers(1, 3),
    size=st.integers(1, 70),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_attention(isa, lengths, num_heads, size, masked, seed):
    cmm.use_isa(isa)
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
    qkv = rng.standard_normal((cu_seqlens[-1], 3 * num_heads * size)).astype(np.float32) * 2
    attended = rng.random(cu_seqlens[-1]) < 0.7 if masked else None
    arguments = (qkv, cu_seqlens, num_heads, size**-0.5, attended)
    found = dense.attention(*arguments, num_threads=1)
    expected = reference.attention(*arguments)
    # Where a whole text is masked, float32 keeps only three digits of a score beside -10,000.
    kept = np.ones(len(qkv), bool)
    if masked:
        some = [attended[a:b].any() for a, b in itertools.pairwise(cu_seqlens)]
        kept = np.repeat(some, lengths).astype(bool)
    np.testing.assert_allclose(found[kept], expected[kept], atol=3e-5)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(dense.attention(*arguments, num_threads=3), found)


@each_isa
@examples(30)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    num_heads=st.integers(1, 3),
    size=st.integers(1, 40),
    room=st.integers(0, 5),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_attention_with_a_bias_by_distance(isa, lengths, num_heads, size, room, masked, seed):
    cmm.use_isa(isa)
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
    qkv = rng.standard_normal((cu_seqlens[-1], 3 * num_heads * size)).astype(np.float32) * 2
    reach = max(*lengths, 1) - 1 + room
    bias = rng.standard_normal((num_heads, 2 * reach + 1)).astype(np.float32) * 3
    attended = None
    if masked:
        attended = rng.random(cu_seqlens[-1]) < 0.7
        attended[cu_seqlens[:-1][np.diff(cu_seqlens) > 0]] = True
    arguments = (qkv, cu_seqlens, num_heads, size**-0.5, attended)
    found = dense.attention(*arguments, bias, num_threads=1)
    np.testing.assert_allclose(found, reference.attention(*arguments, bias), atol=3e-5)
    np.testing.assert_array_equal(dense.attention(*arguments, bias, num_threads=3), found)
    without = dense.attention(*arguments, np.zeros_like(bias))
    np.testing.assert_array_equal(without, dense.attention(*arguments))


@each_isa
@examples(30)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    num_heads=st.integers(1, 3),
    half=st.integers(1, 20),
    seed=st.integers(0, 99),
)
def test_attention_with_rotations(isa, lengths, num_heads, half, seed):
    cmm.use_isa(isa)
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
    qkv = rng.standard_normal((cu_seqlens[-1], 6 * num_heads * half)).astype(np.float32) * 2
    angles = rng.standard_normal((max(*lengths, 1) + 2, half)).astype(np.float32) * 9
    rotations = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    arguments = (qkv, cu_seqlens, num_heads, (2 * half) ** -0.5, None, None, rotations)
    before = qkv.copy()
    found = dense.attention(*arguments, num_threads=1)
    np.testing.assert_allclose(found, reference.attention(*arguments), atol=3e-5)
    np.testing.assert_array_equal(dense.attention(*arguments, num_threads=3), found)
    np.testing.assert_array_equal(qkv, before)


@each_isa
@examples(40)
@given(
    lengths=st.lists(st.integers(0, 150), min_size=1, max_size=4),
    num_heads=st.integers(1, 3),
    size=st.integers(1, 40),
    window=st.integers(0, 70),
    masked=st.booleans(),
    biased=st.booleans(),
    seed=st.integers(0, 99),
)
def test_attention_within_a_window(isa, lengths, num_heads, size, window, masked, biased, seed):
    cmm.use_isa(isa)
    rng = np.random.default_rng(seed)
    cu_seqlens = np.concatenate(([0], np.cumsum(lengths)))
    qkv = rng.standard_normal((cu_seqlens[-1], 3 * num_heads * size)).astype(np.float32) * 2
    attended = rng.random(cu_seqlens[-1]) < 0.7 if masked else None
    bias = rng.standard_normal((num_heads, 2 * max(lengths) + 1)).astype(np.float32) if biased else None
    arguments = (qkv, cu_seqlens, num_heads, size**-0.5, attended, bias, None, window)
    found = dense.attention(*arguments, num_threads=1)
    sees = np.ones(len(qkv), bool)  # a key that it may attend to; float32 keeps few digits beside -10,000
    if masked:
        for start, end in itertools.pairwise(cu_seqlens):
            for token in range(start, end):
                sees[token] = attended[max(start, token - window) : min(end, token + window + 1)].any()
    np.testing.assert_allclose(found[sees], reference.attention(*arguments)[sees], atol=3e-5)
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(dense.attention(*arguments, num_threads=3), found)
    wide = dense.attention(*arguments[:-1], max(lengths))
    np.testing.assert_array_equal(wide, dense.attention(*arguments[:-1]))


@each_isa
def test_a_window_of_no_tokens_gives_each_its_own_value(isa):
    cmm.use_isa(isa)
    qkv = np.random.default_rng(0).standard_normal((100, 3 * 20)).astype(np.float32)
    found = dense.attention(qkv, np.array([0, 37, 100]), 2, 0.3, window=0)
    np.testing.assert_allclose(found, qkv[:, 40:], rtol=1e-6)


@each_isa
def test_attention_with_scores_that_overflow(isa):
    """NaN where the specification has it, in those rows alone."""
    cmm.use_isa(isa)
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((40, 3 * 2 * 20)).astype(np.float32)
    qkv[3, :40] = 1e20  # query 3 with key 3: infinity
    qkv[15, 5] = np.nan
    qkv[35, 0], qkv[36, 50] = np.inf, -np.inf
    arguments = (qkv, np.array([0, 10, 30, 40]), 2, 0.2)
    found = dense.attention(*arguments)
    with np.errstate(invalid="ignore"):
        expected = reference.attention(*arguments)
    assert np.isnan(expected).any()
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=3e-5)
