"""Fine-tuning's hyperparameters and order of rows."""

import numpy as np
import pytest

from ufbert import InputError
from ufbert.train.finetune import FinetuneRecipe
from ufbert.train.finetune.recipe import batches


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


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"batch_size": 1.5}, {"learning_rate": 0.0}, {"dtype": "int8"}])
def test_refusals(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        FinetuneRecipe(**bad)
