"""Trees grown on activations: where a layer's training starts.

Level by level, each node takes the direction of its tokens' inputs that explains most of what is left of the output
(one step of partial least squares on whitened inputs), splits at the median, so that no leaf is dead, and writes the
output row that fits best; what is left goes on to its children, and from one tree to the next.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..fast_feedforward import FastFeedForward

__all__ = ["fit_node", "grow", "whitening_of"]

ITERATIONS = 8  # of the power method
SHRINKAGE = 0.02  # of the inputs' covariance towards its mean variance
NARROWEST = 0.1  # deviation of the scores of whitened inputs: tokens that are nearly the same are not pulled apart
RIDGE = 1.0  # in tokens: keeps the rows of nodes with few tokens small


@torch.no_grad()
def grow(layer: FastFeedForward, x: Tensor, y: Tensor, scale: Tensor) -> float:
    """Set a layer's weights.

    Parameters
    ----------
    layer : FastFeedForward
        With an output bias.
    x, y : (T, H) float32 tensors
        Inputs and wanted outputs.
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
    for tree in range(layer.num_trees):
        node = torch.zeros(len(x), dtype=torch.long)
        for level in range(layer.depth + 1):
            first = 2**level - 1
            order = torch.argsort(node, stable=True)
            counts = torch.bincount(node - first, minlength=first + 1).tolist()
            for index, tokens in enumerate(order.split(counts), start=first):
                direction, bias, row, scores = fit_node(white[tokens], rest[tokens])
                w_in[tree, index], b_in[tree, index], w_out[tree, index] = whitening @ direction, bias, row / scale
                rest[tokens] -= functional.gelu(scores)[:, None] * row
                node[tokens] = 2 * index + 1 + (scores > 0)
    return float(rest.square().mean() / before)


def whitening_of(x: Tensor) -> Tensor:
    """The symmetric (H, H) matrix that gives inputs (T, H) the covariance 1, but for some shrinkage."""
    eigenvalues, vectors = torch.linalg.eigh(torch.cov(x.t()))
    return (vectors * (eigenvalues + SHRINKAGE * eigenvalues.mean()).rsqrt()) @ vectors.t()


def fit_node(white: Tensor, rest: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One node's whitened input direction (H,), bias (), scaled output row (H,), and its tokens' scores (T,)."""
    width = white.shape[1]
    if len(white) < 2:
        return torch.zeros(width), torch.zeros(()), torch.zeros(width), torch.zeros(len(white))
    centred = white - white.mean(0)
    direction = torch.full((width,), width**-0.5)
    for _ in range(ITERATIONS):
        output = functional.normalize(rest.t() @ (centred @ direction), dim=0)
        direction = functional.normalize(centred.t() @ (rest @ output), dim=0)
    scores = white @ direction
    middle = scores.median()
    direction = direction / (scores - middle).std().clamp(min=NARROWEST)
    scores = white @ direction
    bias = -scores.median()
    best: tuple[float, int, Tensor] | None = None
    for sign in (1, -1):  # the activation is not symmetric
        active = functional.gelu(sign * (scores + bias))
        row = (active @ rest) / (active.square().sum() + RIDGE)
        gain = float((active @ rest) @ row)
        if best is None or gain > best[0]:
            best = gain, sign, row
    _, sign, row = best
    return sign * direction, sign * bias, row, sign * (scores + bias)
