import numpy as np
import pytest
from scipy.special import logsumexp

from ufbert import heads
from ufbert.batch import Batch
from ufbert.layers import Linear

HIDDEN = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
BATCH = Batch.from_sequences([[1, 2, 3], [], [4, 5], [6]], [[0] * 3, [], [0] * 2, [0]])
ROWS = [HIDDEN[:3], None, HIDDEN[3:5], HIDDEN[5:]]
IDENTITY = Linear(np.eye(4, dtype=np.float32))


def each(function):
    """`function` of each text's rows; zeros for the empty text."""
    return np.stack([np.zeros(4) if rows is None else function(rows) for rows in ROWS])


POOLED = {
    "cls": lambda rows: rows[0],
    "max": lambda rows: rows.max(0),
    "mean": lambda rows: rows.mean(0),
    "mean_sqrt_len": lambda rows: rows.sum(0) / np.sqrt(len(rows)),
}


@pytest.mark.parametrize("mode", POOLED)
def test_pooling(mode):
    np.testing.assert_allclose(heads.Pooling((mode,))(HIDDEN, BATCH), each(POOLED[mode]), atol=1e-6)


def test_pooling_joined_and_without_the_prompt():
    both = heads.Pooling(("max", "cls"))(HIDDEN, BATCH)
    np.testing.assert_allclose(both, np.hstack([each(POOLED["max"]), each(POOLED["cls"])]), atol=1e-6)
    rest = heads.Pooling(("mean",))(HIDDEN, BATCH, prompt_tokens=1)
    np.testing.assert_allclose(rest, [HIDDEN[1:3].mean(0), np.zeros(4), HIDDEN[4], np.zeros(4)], atol=1e-6)


@pytest.mark.parametrize(
    ("pooler", "function", "keep"),
    [
        ("zero_index", POOLED["cls"], "first"),
        ("avg", POOLED["mean"], "all"),
        ("max", POOLED["max"], "all"),
        ("lse", lambda rows: logsumexp(rows, axis=0), "all"),
    ],
)
def test_crammed_poolers(pooler, function, keep):
    head = heads.SequenceClassifier(pooler, None, "identity", IDENTITY)
    np.testing.assert_allclose(head(HIDDEN, BATCH), each(function), atol=1e-6)
    assert head.keep == keep


def test_first_tokens_of_no_tokens_at_all():
    batch = Batch.from_sequences([[], []], [[], []])
    np.testing.assert_array_equal(heads.first_tokens(np.zeros((0, 4), np.float32), batch), np.zeros((2, 4)))


def test_normalize_leaves_zero_alone():
    rows = heads.normalize(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], atol=1e-7)
