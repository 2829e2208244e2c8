"""Order of rows and learning rates."""

import numpy as np
import pytest

from ufbert import InputError
from ufbert.glue.recipe import Recipe, batches, learning_rate


def test_every_row_is_in_one_batch_and_neighbours_are_of_one_length():
    lengths = np.random.default_rng(0).integers(5, 100, 2_003)
    cut = batches(lengths, 16, seed=1, epoch=0)
    assert sorted(np.concatenate(cut)) == list(range(2_003))
    assert max(map(len, cut)) == 16
    padded = sum(len(batch) * lengths[batch].max() for batch in cut)
    assert padded < 1.06 * lengths.sum()  # in random order it is 1.8 times


def test_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(5, 205))
    first = [batch.tolist() for batch in batches(lengths, 16, 1, 0)]
    assert first == [batch.tolist() for batch in batches(lengths, 16, 1, 0)]
    assert first != [batch.tolist() for batch in batches(lengths, 16, 1, 1)]
    assert first != [batch.tolist() for batch in batches(lengths, 16, 2, 0)]


def test_learning_rate_rises_and_falls_along_a_cosine():
    recipe = Recipe(learning_rate=1e-3, warmup=0.1)
    rates = [learning_rate(recipe, step, 100) for step in range(100)]
    assert max(rates) == rates[10] == 1e-3 and rates[0] > 0 and rates[-1] < 1e-6
    assert rates[55] == pytest.approx(5e-4)
    assert learning_rate(Recipe(warmup=0.0), 0, 1) == Recipe().learning_rate


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 1.5}, {"learning_rate": 0.0}, {"dtype": "int8"}])
def test_refusals(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Recipe(**bad)
