"""Trees grown on activations: where a layer's training starts.

Level by level, each node takes the direction of its tokens' inputs that explains most of what is left of the output
(one step of partial least squares on whitened inputs), splits at the median, so that no leaf is dead, and writes the
output row that fits best; what is left goes on to its children, and from one tree to the next. All nodes of a level
that have about as many tokens are fitted at once, on any device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..fast_feedforward import FastFeedForward

__all__ = ["Fit", "fit_nodes", "grow", "nodes_of_one_size", "whitening_of"]

ITERATIONS = 8  # of the power method
SHRINKAGE = 0.02  # of the inputs' covariance towards its mean variance
NARROWEST = 0.1  # deviation of the scores of whitened inputs: tokens that are nearly the same are not pulled apart
RIDGE = 1.0  # in tokens: keeps the rows of nodes with few tokens small
MOST_AT_ONCE = 2**17  # tokens of nodes that are fitted at once, padding included


@torch.no_grad()
def grow(layer: FastFeedForward, x: Tensor, y: Tensor, scale: Tensor) -> float:
    """Set a layer's weights.

    Parameters
    ----------
    layer : FastFeedForward
        With an output bias.
    x, y : (T, H) float32 tensors
        Inputs and wanted outputs, on the layer's device.
    scale : (H,) float32 tensor
        What an error of each output coordinate counts; what counts nothing gets rows of 0.

    Returns
    -------
    float
        The share of the scaled outputs' variance that is left.
    """
    whitening = whitening_of(x)
    white = x @ whitening
    mean = y.mean(0)
    layer.linear_out.bias.copy_(mean)
    rest = (y - mean) * scale
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)  # where it is 0, so are the scaled rows
    before = rest.square().mean()
    shape = (layer.num_trees, layer.num_nodes, -1)
    w_in, b_in = layer.linear_in.weight.view(shape), layer.linear_in.bias.view(shape[:2])
    w_out = layer.linear_out.weight.t().view(shape)
    for array in (w_in, b_in, w_out):
        array.zero_()  # nodes with less than two tokens stay so
    for tree in range(layer.num_trees):
        node = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for level in range(layer.depth + 1):
            right = torch.zeros_like(node)
            for nodes, tokens, inside in nodes_of_one_size(node, 2**level - 1, 2**level):
                fit = fit_nodes(white[tokens], rest[tokens], inside)
                w_in[tree, nodes], b_in[tree, nodes] = fit.direction @ whitening, fit.bias
                w_out[tree, nodes] = fit.row / scale
                rest[tokens[inside]] -= fit.output()[inside]
                right[tokens[inside]] = (fit.scores[inside] > 0).long()
            node = 2 * node + 1 + right
    return float(rest.square().mean() / before)


def whitening_of(x: Tensor) -> Tensor:
    """The symmetric (H, H) matrix that gives inputs (T, H) the covariance 1, but for some shrinkage."""
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(x.t()))
    return (vectors * (eigenvalues + SHRINKAGE * eigenvalues.mean()).rsqrt()) @ vectors.t()


def nodes_of_one_size(
    node: Tensor, first: int, count: int, fewest: int = 2, wanted: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Gather the tokens of nodes, so many nodes at once as have about as many tokens.

    Parameters
    ----------
    node : (T,) int64 tensor
        The node at which each token is.
    first, count : int
        The level's nodes are those from `first` on, `count` in all.
    fewest : int
        Nodes with fewer tokens are left out.
    wanted : (count,) bool tensor, optional
        Only these nodes.

    Yields
    ------
    nodes : (m,) int64 tensor
    tokens : (m, c) int64 tensor
        Numbers of their tokens, and of any where a node has less than c.
    inside : (m, c) bool tensor
        False there.
    """
    order = torch.argsort(node, stable=True)
    counts = torch.bincount(node - first, minlength=count)
    starts = counts.cumsum(0) - counts
    chosen = counts >= fewest if wanted is None else (counts >= fewest) & wanted
    numbers = chosen.nonzero()[:, 0]
    numbers = numbers[torch.argsort(counts[numbers], descending=True, stable=True)]
    sizes, begin = counts[numbers].tolist(), 0
    while begin < len(sizes):
        size, end = sizes[begin], begin + 1
        while end < len(sizes) and sizes[end] * 2 > size and (end + 1 - begin) * size <= MOST_AT_ONCE:
            end += 1
        group = numbers[begin:end]
        offset = torch.arange(size, device=node.device)
        inside = offset < counts[group, None]
        yield first + group, order[starts[group, None] + torch.where(inside, offset, 0)], inside
        begin = end


@dataclass(frozen=True)
class Fit:
    """m nodes, each fitted to up to c tokens.

    Attributes
    ----------
    direction : (m, H) tensor
        Of whitened inputs.
    bias : (m,) tensor
    row : (m, H) tensor
        Scaled output rows.
    scores : (m, c) tensor
        Of the tokens.
    """

    direction: Tensor
    bias: Tensor
    row: Tensor
    scores: Tensor

    def output(self) -> Tensor:
        """What the nodes give for their tokens, scaled: (m, c, H)."""
        return functional.gelu(self.scores)[:, :, None] * self.row[:, None]


def fit_nodes(white: Tensor, rest: Tensor, inside: Tensor) -> Fit:
    """Fit nodes to their tokens.

    Parameters
    ----------
    white, rest : (m, c, H) tensors
        Whitened inputs, and what is left of the scaled outputs, which is set to 0 where there is no token.
    inside : (m, c) bool tensor
        False where there is no token. Each node has at least two.
    """
    shares, counts = inside[:, :, None].to(white.dtype), inside.sum(1)
    rest.mul_(shares)
    centred = (white - shares.mT @ white / counts[:, None, None]).mul_(shares)
    direction = white.new_full((len(white), white.shape[2], 1), white.shape[2] ** -0.5)
    for _ in range(ITERATIONS):
        output = functional.normalize(rest.mT @ (centred @ direction), dim=1)
        direction = functional.normalize(centred.mT @ (rest @ output), dim=1)
    scores = (white @ direction)[:, :, 0]
    middle = _median(scores, inside, counts)
    deviation = (((centred @ direction)[:, :, 0].square().sum(1)) / (counts - 1)).sqrt().clamp(min=NARROWEST)
    direction = direction[:, :, 0] / deviation[:, None]
    scores = (white @ direction[:, :, None])[:, :, 0]
    bias = -scores.gather(1, middle)[:, 0]
    signs = white.new_tensor([1.0, -1.0])  # the activation is not symmetric: take the better one
    active = functional.gelu(signs[:, None, None] * (scores + bias[:, None])) * shares[:, :, 0]  # (2, m, c)
    explained = torch.einsum("smc,mch->smh", active, rest)
    rows = explained / (active.square().sum(2, keepdim=True) + RIDGE)
    gains = (explained * rows).sum(2)
    best = (gains[1] > gains[0]).long()
    sign, row = signs[best], rows[best, torch.arange(len(best), device=best.device)]
    return Fit(sign[:, None] * direction, sign * bias, row, sign[:, None] * (scores + bias[:, None]))


def _median(scores: Tensor, inside: Tensor, counts: Tensor) -> Tensor:
    """Where each node's median is, the lower of two: (m, c) -> (m, 1)."""
    order = torch.where(inside, scores, torch.inf).argsort(1)
    return order.gather(1, (counts[:, None] - 1) // 2)
