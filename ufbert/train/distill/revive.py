"""Dead subtrees of a model that was trained before, brought back to life; more trees beside those it has.

Training lets some nodes send all tokens to one side, and what lies below the other side serves no one. Such a node gets
the decision that `grow` would give it, and its dead side a copy of the living one: both go on from what one could do.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ..bert import Bert
from ..fast_feedforward import FastFeedForward
from .corpus import Chunks, TextBatch
from .grow import fit_nodes, nodes_of_one_size, whitening_of
from .teacher import Teacher

__all__ = ["add_trees", "revive", "revive_layers"]

DEAD = 0.005  # of a node's tokens: a side that gets no more is dead
FEWEST = 64  # tokens that a node needs for a new decision


@torch.no_grad()
def add_trees(student: Bert, num_trees: int) -> None:
    """Give each layer `num_trees` trees: its own, then others that add nothing yet, with random decisions."""
    before = [layer.ffn for layer in student.layers]
    student.replace_feed_forward(num_trees=num_trees)
    for old, new in zip(before, [layer.ffn for layer in student.layers], strict=True):
        assert old is not None
        assert new is not None
        kept = len(old.linear_in.weight)
        new.linear_in.weight[:kept], new.linear_in.bias[:kept] = old.linear_in.weight, old.linear_in.bias
        new.linear_out.weight.zero_()
        new.linear_out.weight[:, :kept] = old.linear_out.weight
        new.linear_out.bias.copy_(old.linear_out.bias)


@torch.no_grad()
def revive_layers(
    student: Bert, teacher: Teacher, corpus: Chunks, scale: Tensor, chunk: int, wanted: int, first: int = 0
) -> Iterator[int]:
    """Revive dead subtrees of the layers from `first` to the last, one each time that this is asked to go on.

    Parameters
    ----------
    student : Bert
        With fast feedforward layers.
    teacher : Teacher
    corpus : Chunks
    scale : (L, H) float32 tensor
        Standard deviations of the teacher's output coordinates.
    chunk : int
        First of the corpus's chunks to use.
    wanted : int
        Tokens to use; a chunk is used whole.
    first : int
        Layers before it are done.

    Yields
    ------
    int
        Nodes of a layer with a new decision.
    """
    batches: list[TextBatch] = []
    while sum(batch.num_tokens for batch in batches) < wanted:
        batches += corpus.chunk(chunk)
        chunk += 1
    runs = [teacher(batch, inputs=False).outputs for batch in batches]
    hidden = [student.embed(batch.input_ids) for batch in batches]
    masks = [student.mask(batch.attention_mask, batch.input_ids.shape[1]) for batch in batches]
    for index, layer in enumerate(tqdm(student.layers, desc="reviving", unit="layer")):
        norm = layer.norm2
        hidden = [layer.attend(h, mask) for h, mask in zip(hidden, masks, strict=True)]
        if index >= first:
            x = torch.cat([batch.unpadded(h) for h, batch in zip(hidden, batches, strict=True)])
            before = layer.ffn(x) + x
            missing = (torch.cat([run[index] for run in runs]) - norm(before)) / scale[index]
            factors = norm.weight / scale[index] / before.std(1).median()  # not the mean: a few tokens are huge
            factors = torch.copysign(factors.abs().clamp(min=float(factors.abs().mean()) / 10), factors)
            yield revive(layer.ffn, x, missing, factors)
        hidden = [norm(layer.ffn(h) + h) for h in hidden]


@torch.no_grad()
def revive(layer: FastFeedForward, x: Tensor, missing: Tensor, factors: Tensor) -> int:
    """Give nodes that send nearly all tokens to one side a new decision, where that takes away from the error.

    Parameters
    ----------
    layer : FastFeedForward
    x : (T, H) float32 tensor
        Inputs.
    missing : (T, H) float32 tensor
        What outputs should have more, times `factors`; changed in place to what is missing then.
    factors : (H,) float32 tensor
        None of them 0.

    Returns
    -------
    int
        Nodes with a new decision.
    """
    shape = (layer.num_trees, layer.num_nodes, -1)
    w_in, b_in = layer.linear_in.weight.view(shape), layer.linear_in.bias.view(shape[:2])
    w_out = layer.linear_out.weight.t().view(shape)
    whitening = whitening_of(x)
    white = x @ whitening
    changed = 0
    for tree in range(layer.num_trees):
        arrays = w_in[tree], b_in[tree], w_out[tree]
        node = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for level in range(layer.depth):
            scores = (x * w_in[tree, node]).sum(1) + b_in[tree, node]
            first, count = 2**level - 1, 2**level
            one_sided, dead = _one_sided(node - first, scores, count)
            for nodes, tokens, inside in nodes_of_one_size(node, first, count, FEWEST, one_sided):
                old = functional.gelu(scores[tokens])[:, :, None] * (w_out[tree, nodes] * factors)[:, None]
                wanted = missing[tokens] + old
                fit = fit_nodes(white[tokens], wanted, inside)
                left = wanted - fit.output()
                # A neuron that is active for all tokens can be worth more than a decision.
                better = _error(left, inside) < _error(missing[tokens], inside)
                chosen, its = nodes[better], inside[better]
                new = fit.direction[better] @ whitening, fit.bias[better], fit.row[better] / factors
                for array, values in zip(arrays, new, strict=True):
                    array[chosen] = values
                changed_tokens = tokens[better][its]
                missing[changed_tokens], scores[changed_tokens] = left[better][its], fit.scores[better][its]
                _copy_living(arrays, chosen, dead[chosen - first], layer.depth - level)
                changed += len(chosen)
            node = 2 * node + 1 + (scores > 0)
    return changed


def _one_sided(node: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Of the nodes of a level: which have a dead side, and whether that is the right one, (count,) each."""
    tokens = torch.bincount(node, minlength=count)
    right = torch.bincount(node[scores > 0], minlength=count)
    return torch.minimum(right, tokens - right) <= DEAD * tokens, 2 * right <= tokens


def _error(missing: Tensor, inside: Tensor) -> Tensor:
    return (missing.square().sum(2) * inside).sum(1)


def _copy_living(arrays: tuple[Tensor, Tensor, Tensor], nodes: Tensor, right_is_dead: Tensor, levels: int) -> None:
    """Give the dead side of nodes what is on their living side, one level of the subtrees after another."""
    dead = 2 * nodes + 1 + right_is_dead.long()
    living = 4 * nodes + 3 - dead
    for below in range(levels):
        offset = torch.arange(2**below, device=nodes.device)
        source, target = (((side + 1) * 2**below - 1)[:, None] + offset for side in (living, dead))
        for array in arrays:
            array[target] = array[source]
