"""The walk of tokens down trees with its gradients, twice: on the kernels, and in plain PyTorch for any device.

The kernels visit depth + 1 nodes of each tree and try one decision of each token and tree, drawn at random. The plain
walk computes all scores by one multiplication, which a GPU prefers, and tries every decision at once: its gradient is
the mean of what the kernels draw from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import cmm
from ..activations import IN_KERNELS, TABLE

__all__ = ["ACTIVATIONS", "KernelWalk", "PlainWalk", "Trees"]

ACTIVATIONS: dict[str, nn.Module] = {name: getattr(nn, str(TABLE[name].torch))() for name in IN_KERNELS}
MOST_SCORES = 2**28  # that the plain walk holds at a time: it cuts tokens into parts


@dataclass(frozen=True)
class Trees:
    """What a walk must know beside the weights.

    Attributes
    ----------
    num_trees, depth : int
    activation : str
        A key of `ACTIVATIONS`.
    decides : bool
        Whether decisions get gradients.
    switch_cost : float
        See `ufbert.cmm.fff_backward`.
    """

    num_trees: int
    depth: int
    activation: str
    decides: bool
    switch_cost: float

    @property
    def num_nodes(self) -> int:
        """Nodes of one tree, n."""
        return 2 ** (self.depth + 1) - 1


class KernelWalk(torch.autograd.Function):
    """`cmm.fff_forward` and `cmm.fff_backward` on views of float32 tensors on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, trees: Trees) -> Any:
        """(T, H) -> y (T, H), path and scores (T, P, depth + 1) as arrays; w_in, w_out (P * n, H), b_in (P * n,)."""
        shape = (trees.num_trees, trees.num_nodes, x.shape[1])
        y, path, scores = cmm.fff_forward(
            x.detach().numpy(), w_in.detach().view(shape).numpy(), b_in.detach().view(shape[:2]).numpy(),
            w_out.detach().reshape(shape).numpy(), trees.depth, activation=trees.activation,
            num_threads=torch.get_num_threads(), return_path=True, return_scores=True,
        )  # fmt: skip
        ctx.save_for_backward(x, w_in, b_in, w_out)
        ctx.visits, ctx.trees, ctx.shape = (path, scores), trees, shape
        return torch.from_numpy(y), path, scores

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        """Gradients of x and of the three weights."""
        x, w_in, b_in, w_out = (tensor.detach() for tensor in ctx.saved_tensors)
        trees, shape, tried = ctx.trees, ctx.shape, None
        if trees.decides:
            tried = torch.randint(trees.depth, (len(x), trees.num_trees), dtype=torch.int32).numpy()
        grads = cmm.fff_backward(
            dy.contiguous().numpy(), x.numpy(), w_in.view(shape).numpy(), b_in.view(shape[:2]).numpy(),
            w_out.reshape(shape).numpy(), trees.depth, *ctx.visits, activation=trees.activation,
            num_threads=torch.get_num_threads(), tried=tried, switch_cost=trees.switch_cost,
        )  # fmt: skip
        dx, dw_in, db_in, dw_out = map(torch.from_numpy, grads)
        return dx, dw_in.view(w_in.shape), db_in.view(-1), dw_out.view(w_out.shape), None


class PlainWalk(torch.autograd.Function):
    """The same on any device; the decision gradient is that of every level at once.

    Outside autocast everything is float32. Under autocast scores are float16, for routing needs 10 bits of mantissa,
    and gradients bfloat16, which reaches as far as float32; GPUs sum both in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, trees: Trees, low: bool) -> Any:
        """(T, H) -> y (T, H), path int64 and scores float32 (T, P, depth + 1); w_in, w_out (P * n, H)."""
        score_type, ctx.gradient_type = (torch.float16, torch.bfloat16) if low else (torch.float32, torch.float32)
        narrow = [tensor.to(score_type) for tensor in (w_in, b_in, w_out)]
        parts = [_descend(part.to(score_type), narrow, trees) for part in _parts(x, trees)]
        y, path, scores = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(x, w_in, b_in, w_out, path, scores)
        ctx.trees, ctx.score_type = trees, score_type
        ctx.mark_non_differentiable(path, scores)
        return y.to(x.dtype), path, scores

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        """Gradients of x and of the three weights."""
        x, w_in, b_in, w_out, path, scores = ctx.saved_tensors
        weights = w_in, b_in, w_out
        sums: list[Tensor] = [torch.zeros_like(weight) for weight in weights]
        dx = torch.empty_like(x)
        start = 0
        for part in _parts(x, ctx.trees):
            rows = slice(start, start + len(part))
            start += len(part)
            visit = _Visit(part, dy[rows].contiguous(), path[rows], scores[rows], ctx.score_type, ctx.gradient_type)
            dx[rows], *grads = visit.gradients(weights, ctx.trees)
            for total, grad in zip(sums, grads, strict=True):
                total += grad
        return dx, *sums, None, None


def _parts(x: Tensor, trees: Trees) -> tuple[Tensor, ...]:
    """Cut tokens into parts whose scores of all nodes fit into memory together."""
    return x.split(max(MOST_SCORES // (trees.num_trees * trees.num_nodes), 1))


def _all_scores(x: Tensor, w_in: Tensor, b_in: Tensor | None, trees: Trees) -> Tensor:
    return functional.linear(x, w_in, b_in).unflatten(1, (trees.num_trees, trees.num_nodes))  # (T, P, n)


def _rows(path: Tensor, trees: Trees) -> Tensor:
    """Numbers of a path's nodes among those of all trees: (T, P, k) -> (T, P * k)."""
    first = torch.arange(trees.num_trees, device=path.device) * trees.num_nodes
    return (path + first[:, None]).flatten(1)


def _descend(x: Tensor, weights: list[Tensor], trees: Trees) -> tuple[Tensor, Tensor, Tensor]:
    w_in, b_in, w_out = weights
    every = _all_scores(x, w_in, b_in, trees)
    node = torch.zeros((len(x), trees.num_trees, 1), dtype=torch.long, device=x.device)
    nodes, found = [], []
    for _ in range(trees.depth + 1):
        score = every.gather(2, node)
        nodes.append(node)
        found.append(score)
        node = 2 * node + 1 + (score > 0)
    path, scores = torch.cat(nodes, 2), torch.cat(found, 2).float()
    active = ACTIVATIONS[trees.activation](scores).flatten(1).to(x.dtype)
    return functional.embedding_bag(_rows(path, trees), w_out, per_sample_weights=active, mode="sum"), path, scores


@dataclass(frozen=True)
class _Visit:
    """Tokens that walked, with the gradient of what they gave: T tokens, P trees, D levels of decisions."""

    x: Tensor  # (T, H)
    dy: Tensor  # (T, H)
    path: Tensor  # (T, P, D + 1)
    scores: Tensor  # (T, P, D + 1) float32
    score_type: torch.dtype
    gradient_type: torch.dtype

    def gradients(self, weights: tuple[Tensor, Tensor, Tensor], trees: Trees) -> tuple[Tensor, ...]:
        """Gradients of x, w_in, b_in, w_out."""
        w_in, b_in, w_out = weights
        narrow = self.gradient_type
        values = _all_scores(self.dy.to(narrow), w_out.to(narrow), None, trees)  # of a node that is 1, (T, P, n)
        active, slope = _with_slope(ACTIVATIONS[trees.activation], self.scores)
        gained = values.gather(2, self.path).float()  # (T, P, D + 1)
        d_scores = gained * slope
        if trees.decides:
            d_scores[..., :-1] += self._decisions(weights, trees, values, active, gained)
        rows, shares = _rows(self.path, trees), d_scores.flatten(1).to(narrow)
        dense = torch.zeros((len(rows), len(w_in)), dtype=narrow, device=rows.device)
        dense.scatter_(1, rows, shares)
        dw_in = (dense.t() @ self.x.to(narrow)).float()
        db_in = torch.zeros_like(b_in).index_add_(0, rows.flatten(), d_scores.flatten())
        dx = functional.embedding_bag(rows, w_in.to(narrow), per_sample_weights=shares, mode="sum")
        dense.scatter_(1, rows, active.flatten(1).to(narrow))
        return dx.to(self.x.dtype), dw_in, db_in, (dense.t() @ self.dy.to(narrow)).float()

    def _decisions(
        self, weights: tuple[Tensor, Tensor, Tensor], trees: Trees, values: Tensor, active: Tensor, gained: Tensor
    ) -> Tensor:
        """Gradients of the scores that decide, (T, P, D): density of the edge, times right side's loss less left's."""
        w_in, b_in, w_out = weights
        every = _all_scores(self.x.to(self.score_type), w_in.to(self.score_type), b_in.to(self.score_type), trees)
        squares = w_out.float().square().sum(1).view(1, trees.num_trees, -1).expand(len(self.x), -1, -1)  # (T, P, n)
        went_right = self.scores[..., :-1] > 0
        taken = _below(gained * active)
        square = _below(active.square() * squares.gather(2, self.path))
        other = torch.zeros_like(taken)
        node = 2 * self.path[..., :-1] + 2 - went_right.long()  # the child that was not taken, for every level
        for levels in range(trees.depth, 0, -1):  # walks that began on one of the first `levels` are not over
            node = node[..., :levels]
            score = every.gather(2, node).float()
            value = ACTIVATIONS[trees.activation](score)
            other[..., :levels] += values.gather(2, node).float() * value
            square[..., :levels] += value.square() * squares.gather(2, node)
            node = 2 * node + 1 + (score > 0)
        other += trees.switch_cost * self.dy.float().square().mean(1).sqrt()[:, None, None] * square.sqrt()
        density = (-0.5 * self.scores[..., :-1].square()).exp() / math.sqrt(2 * math.pi)
        return density * torch.where(went_right, taken - other, other - taken)


def _below(visited: Tensor) -> Tensor:
    """Sums over the visited nodes below each deciding one: (T, P, D + 1) -> (T, P, D)."""
    return visited[..., 1:].flip(2).cumsum(2).flip(2)


def _with_slope(activation: Callable[[Tensor], Tensor], scores: Tensor) -> tuple[Tensor, Tensor]:
    """The activation of scores, and its derivative there."""
    with torch.enable_grad():
        scores = scores.detach().requires_grad_()
        active = activation(scores)
        (slope,) = torch.autograd.grad(active.sum(), scores)
    return active.detach(), slope
