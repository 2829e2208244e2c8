import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufbert.batch import Batch, from_padded, pad, split_by_budget
from ufbert.errors import InputError

MASK = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
IDS = np.arange(15).reshape(3, 5)


def test_from_padded_drops_masked_tokens_and_keeps_their_positions():
    batch, kept = from_padded(IDS, MASK)
    np.testing.assert_array_equal(batch.input_ids, [0, 1, 3, 6, 7])
    np.testing.assert_array_equal(batch.position_ids, [0, 1, 3, 1, 2])
    np.testing.assert_array_equal(batch.cu_seqlens, [0, 3, 5, 5])
    assert batch.attended is None
    padded = pad(batch.input_ids[:, None].astype(np.float32), kept)
    np.testing.assert_array_equal(padded[:, :, 0], IDS * MASK)


@pytest.mark.parametrize(("keep", "tokens", "unattended"), [("attended", 5, 0), ("first", 7, 2), ("all", 15, 10)])
def test_from_padded_keeps_what_a_head_reads(keep, tokens, unattended):
    batch, kept = from_padded(IDS, MASK, keep=keep)
    assert batch.num_tokens == tokens == kept.sum()
    assert (0 if batch.attended is None else (~batch.attended).sum()) == unattended


@pytest.mark.parametrize(("keep", "row"), [("attended", [0, 1, 1, 1, 0]), ("first", [1, 1, 1, 1, 0])])
def test_from_padded_keeps_gaps_for_distances(keep, row):
    batch, kept = from_padded([[7, 8, 9, 10, 11], [7, 8, 9, 10, 11]], [[0, 1, 0, 1, 0], [1] * 5], None, keep, 0, True)
    np.testing.assert_array_equal(kept, np.array([row, [1] * 5], bool))
    assert batch.attended.sum() == 7


def test_from_sequences_and_select():
    batch = Batch.from_sequences([[5, 6], [], [7, 8, 9]], [[0, 0], [], [0, 1, 1]])
    np.testing.assert_array_equal(batch.position_ids, [0, 1, 0, 1, 2])
    last = batch.select(2, 3)
    np.testing.assert_array_equal(last.input_ids, [7, 8, 9])
    np.testing.assert_array_equal(last.cu_seqlens, [0, 3])
    assert len(batch) == 3 and len(last) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2],), "2-D"),
        (([[0.5, 1.0]],), "integers"),
        ((np.zeros((2, 0), int),), "at least one token"),
        ((IDS, MASK[:, :3]), "shape of input_ids"),
        ((IDS, MASK * 2), "0 and 1"),
        ((IDS, MASK, IDS[0]), "2-D"),
        (([[2**40]],), "32-bit"),
    ],
)
def test_from_padded_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        from_padded(*arguments)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 60), st.none() | st.integers(1, 5))
def test_split_by_budget_covers_everything_once(lengths, budget, max_texts):
    runs = list(split_by_budget(lengths, budget, max_texts))
    assert [index for start, stop in runs for index in range(start, stop)] == list(range(len(lengths)))
    for start, stop in runs:
        assert stop > start
        assert sum(lengths[start:stop]) <= budget or stop - start == 1
        assert max_texts is None or stop - start <= max_texts


@pytest.mark.parametrize(
    ("cu_seqlens", "message"),
    [([0, 3], "cut 4 tokens"), ([1, 4], "cut 4"), ([0, 3, 2, 4], "cut 4"), ([0, 5, 4], "cut 4"), ([], "int64")],
)
def test_a_batch_that_does_not_cut_its_tokens_is_refused(cu_seqlens, message):
    zeros = np.zeros(4, np.int32)
    with pytest.raises(InputError, match=f"cu_seqlens: expected .*{message}"):
        Batch(zeros, zeros, zeros, np.array(cu_seqlens, np.int64))
    with pytest.raises(InputError, match="int64"):
        Batch(zeros, zeros, zeros, np.array([0, 4], np.int32))
    with pytest.raises(InputError, match="attended"):
        Batch(zeros, zeros, zeros, np.array([0, 4]), np.ones(3, bool))


@given(st.lists(st.integers(0, 200), max_size=40), st.integers(1, 8))
def test_a_plan_covers_all_texts_in_groups_that_fit(lengths, threads):
    batch = Batch.from_sequences([[0] * length for length in lengths], [[0] * length for length in lengths])
    groups, largest, by_columns = batch.plan(threads)
    assert groups[0] == 0 and groups[-1] == len(batch) and (np.diff(groups) > 0).all()
    tokens = np.diff(batch.cu_seqlens[groups])
    assert largest == max(tokens, default=0) and (np.diff(groups)[tokens > 128] == 1).all()
    assert by_columns == (threads > 1 and len(tokens) < 4 * threads)
    assert batch.plan(threads) is batch.plan(threads) and batch.max_length == max(lengths, default=0)


def test_groups_get_smaller_towards_the_end():
    batch = Batch.from_sequences([[0] * 10] * 200, [[0] * 10] * 200)
    tokens = np.diff(batch.cu_seqlens[batch.plan(2).groups])
    assert tokens[0] == 120 and (np.diff(tokens[:-1]) <= 0).all() and (tokens[-4:] <= 32).all()


def test_positions_after_padding():
    """As transformers' create_position_ids_from_input_ids: padding (id 1) stands at 1, others count from 2."""
    ids = np.array([[0, 5, 1, 6, 2], [0, 2, 1, 1, 1]])
    batch, _ = from_padded(ids, keep="all", first_position=2)
    np.testing.assert_array_equal(batch.position_ids.reshape(2, 5), [[2, 3, 1, 4, 5], [2, 3, 1, 1, 1]])
    flat = Batch.from_sequences([[0, 5, 1, 6, 2], [], [0, 2]], [[0] * 5, [], [0] * 2], first_position=2)
    np.testing.assert_array_equal(flat.position_ids, [2, 3, 1, 4, 5, 2, 3])


def test_padded_is_the_inverse_of_from_padded():
    batch = Batch.from_sequences([[5, 6], [], [7, 8, 9]], [[0, 1], [], [0, 1, 1]])
    ids, types, mask = batch.padded(4)
    np.testing.assert_array_equal(ids, [[5, 6, 4], [4, 4, 4], [7, 8, 9]])
    back, _ = from_padded(ids, mask, types)
    for name in ("input_ids", "token_type_ids", "position_ids", "cu_seqlens"):
        np.testing.assert_array_equal(getattr(back, name), getattr(batch, name))


def test_parts_are_the_batch():
    batch = Batch.from_sequences([[i] * i for i in range(9)], [[0] * i for i in range(9)])
    parts = list(batch.parts(10, 3))
    assert [start for start, _ in parts] == [0, 3, 5, 6, 7, 8]
    np.testing.assert_array_equal(np.concatenate([part.input_ids for _, part in parts]), batch.input_ids)
    assert [part for _, part in batch.parts(10**6)] == [batch]


@pytest.mark.parametrize(
    ("ids", "types", "name"), [([[1, 2**31]], [[0, 0]], "input_ids"), ([[1]], [[2**31]], "token_type_ids")]
)
def test_ids_that_no_vocabulary_has(ids, types, name):
    with pytest.raises(InputError, match=f"^{name}: expected ids of 32 bits"):
        Batch.from_sequences(ids, types)
