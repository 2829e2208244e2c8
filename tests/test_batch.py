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
