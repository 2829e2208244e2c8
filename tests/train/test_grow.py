"""Trees grown on activations: nodes fitted at once are as if fitted alone; what grown trees explain."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ufbert.train import FastFeedForward
from ufbert.train.distill.grow import fit_nodes, grow, nodes_of_one_size

torch.set_num_threads(1)  # tiny models: no pool of threads that spins in another's time


def test_grown_trees_split_evenly_and_explain():
    torch.manual_seed(0)
    layer, x = FastFeedForward(12, 2, 4, output_bias=True), torch.randn(4_000, 12)
    y = torch.relu(x @ torch.randn(12, 30)) @ torch.randn(30, 12)
    left = grow(layer, x, y, 1 / y.std(0))
    explained = 1 - ((layer(x) - y) / y.std(0)).square().mean() / ((y - y.mean(0)) / y.std(0)).square().mean()
    assert left < 0.5
    assert explained.item() == pytest.approx(1 - left, abs=0.02)
    leaves = np.bincount(layer.path[:, 0, -1], minlength=31)[15:]
    assert leaves.min() > 0.5 * len(x) / 16


def test_outputs_that_count_nothing_get_rows_of_0():
    """A norm's weight may be exactly 0: three of MiniLM's last norm are."""
    torch.manual_seed(0)
    layer, x = FastFeedForward(12, 1, 3, output_bias=True), torch.randn(500, 12)
    y, scale = torch.relu(x @ torch.randn(12, 12)), torch.ones(12)
    scale[[2, 7]] = 0
    grow(layer, x, y, scale)
    assert torch.equal(layer.linear_out.weight.abs().sum(1) == 0, scale == 0)
    assert all(torch.isfinite(parameter).all() for parameter in layer.parameters())


def test_nodes_without_two_tokens_are_0():
    torch.manual_seed(0)
    layer, x = FastFeedForward(12, 1, 5, output_bias=True), torch.randn(20, 12)
    grow(layer, x, x.clone(), torch.ones(12))
    last = slice(31, 63)  # 20 tokens on 32 leaves
    assert layer.linear_in.weight[:7].abs().sum(1).min() > 0
    assert (layer.linear_in.weight[last].abs().sum(1) == 0).sum() >= 24
    assert torch.equal(layer.linear_out.weight.abs().sum(0) == 0, layer.linear_in.weight.abs().sum(1) == 0)


@pytest.mark.parametrize("sizes", [[5, 0, 1, 2, 300, 7, 9, 40], [3] * 8])
def test_every_token_of_the_nodes_that_are_asked_for_comes_once(sizes):
    node = torch.repeat_interleave(torch.arange(7, 15), torch.tensor(sizes))[torch.randperm(sum(sizes))]
    wanted = torch.tensor([True] * 7 + [False])
    found: dict[int, list[int]] = {}
    for nodes, tokens, inside in nodes_of_one_size(node, 7, 8, 2, wanted):
        assert tokens.shape == inside.shape and inside.sum(1).min() * 2 > tokens.shape[1]  # little padding
        for one, its, real in zip(nodes.tolist(), tokens, inside, strict=True):
            assert one not in found
            found[one] = sorted(its[real].tolist())
    assert found == {7 + index: (node == 7 + index).nonzero()[:, 0].tolist() for index in range(7) if sizes[index] >= 2}


def test_a_node_is_fitted_as_if_it_were_alone():
    torch.manual_seed(0)
    white, rest = torch.randn(3, 50, 6, dtype=torch.float64), torch.randn(3, 50, 6, dtype=torch.float64)
    rest += white[:, :, :1].clamp(min=0) * torch.randn(6)
    counts = torch.tensor([50, 31, 40])
    inside = torch.arange(50) < counts[:, None]
    white[~inside], rest[~inside] = 1e3, (-1e3)  # padding must not count
    together = fit_nodes(white, rest, inside)
    for index, count in enumerate(counts.tolist()):
        alone = fit_nodes(white[index : index + 1, :count], rest[index : index + 1, :count], inside[:1, :count])
        torch.testing.assert_close(together.direction[index], alone.direction[0])
        torch.testing.assert_close(together.row[index], alone.row[0])
        scores = together.scores[index, :count]
        torch.testing.assert_close(scores, white[index, :count] @ together.direction[index] + together.bias[index])
        assert (scores > 0).sum() in (count // 2, (count - 1) // 2)  # the median, which the sign may turn over
        active = functional.gelu(scores)
        best = (active @ rest[index, :count]) / (active @ active + 1)
        torch.testing.assert_close(together.row[index], best)
        assert scores.std() >= 0.9
