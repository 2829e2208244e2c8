"""Differentiable operations of the training step, each a few Triton kernels and matrix multiplications.

Tokens lie flat: T is a multiple of ROW, texts do not cross a row's end, and `segment` tells them apart. Hidden states
are float32. Matrices are multiplied in `HALF`, the scores of trees in `SCORE`: decisions need float16's ten bits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from . import kernels

__all__ = ["ROW", "Attention", "Error", "Linear", "Norm", "TreeShape", "Trees"]

ROW = 128  # tokens of a packed row, and so the longest text
HALF = torch.bfloat16
SCORE = torch.float16
TOKENS = 32  # tokens of a program that walks trees
MIX_TOKENS = 16  # of one that sums rows
NORM_TOKENS, NORM_ROUNDS = 1, 32  # of one of layer norm and its gradient, a warp each: no barrier


def _power_of_2(size: int) -> int:
    return int(triton.next_power_of_2(size))


class Attention(torch.autograd.Function):
    """Self-attention within segments: qkv (T, 3 * H), segment (T,) int32, head size -> (T, H)."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, segment: Tensor, head: int) -> Tensor:
        width = qkv.shape[1] // 3
        out = qkv.new_empty(len(qkv), width)
        grid = (len(qkv) // ROW, width // head)
        kernels.attention_kernel[grid](qkv, segment, out, head**-0.5, W=width, ROW=ROW, HEAD=head, num_warps=8)
        ctx.save_for_backward(qkv, segment)
        ctx.head = head
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> Any:
        qkv, segment = ctx.saved_tensors
        width, d_qkv = qkv.shape[1] // 3, torch.empty_like(qkv)
        kernels.attention_backward_kernel[len(qkv) // ROW, width // ctx.head](
            qkv, segment, d_out.contiguous(), d_qkv, ctx.head**-0.5, W=width, ROW=ROW, HEAD=ctx.head, num_warps=8
        )
        return d_qkv, None, None


class Norm(torch.autograd.Function):
    """Layer norm of x + delta: float32 x (T, H), delta (T, H) or None -> the norm in float32 and in `half`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor | None, weight: Tensor, bias: Tensor, eps: float, half: torch.dtype
    ) -> Any:
        tokens, width = x.shape
        out, lower = torch.empty_like(x), torch.empty_like(x, dtype=half)
        mean, scale = x.new_empty(2, tokens)
        kernels.norm_kernel[(triton.cdiv(tokens, NORM_TOKENS),)](
            x, delta, weight, bias, out, lower, mean, scale, eps, tokens, H=width, HAS_DELTA=delta is not None,
            TOKENS=NORM_TOKENS, COLUMNS=_power_of_2(width), num_warps=1,
        )  # fmt: skip
        ctx.save_for_backward(x, delta, weight, mean, scale)
        ctx.set_materialize_grads(False)
        return out, lower

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dy_half: Tensor | None) -> Any:
        x, delta, weight, mean, scale = ctx.saved_tensors
        tokens, width = x.shape
        dx = torch.empty_like(x)
        d_delta = None if delta is None else torch.empty_like(delta)
        programs = triton.cdiv(tokens, NORM_TOKENS * NORM_ROUNDS)
        sums = x.new_empty(2, programs, width)
        kernels.norm_backward_kernel[(programs,)](
            dy, dy_half, x, delta, weight, mean, scale, dx, d_delta, sums[0], sums[1], tokens, H=width,
            HAS_DY=dy is not None, HAS_HALF=dy_half is not None, HAS_DELTA=delta is not None, ROUNDS=NORM_ROUNDS,
            TOKENS=NORM_TOKENS, COLUMNS=_power_of_2(width), num_warps=1,
        )  # fmt: skip
        d_weight, d_bias = sums.sum(1)
        return dx, d_delta, d_weight, d_bias, None, None


class Linear(torch.autograd.Function):
    """x (T, I) of `HALF` times a float32 weight (O, I), plus bias: (T, O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        lower = weight.to(x.dtype)
        ctx.save_for_backward(x, lower)
        return torch.nn.functional.linear(x, lower, bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return dy @ weight, (dy.t() @ x).float(), dy.sum(0, dtype=torch.float32)


class Error(torch.autograd.Function):
    """Sum over tokens of weight * mean(((y - wanted) * inverse_scale)**2), as one summand of the loss."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, wanted: Tensor, inverse_scale: Tensor, weight: Tensor) -> Tensor:
        tokens, width = y.shape
        d_y, error = torch.empty_like(y), y.new_empty(tokens)
        kernels.error_kernel[(triton.cdiv(tokens, NORM_TOKENS),)](
            y, wanted, inverse_scale, weight, d_y, error, tokens, H=width, TOKENS=NORM_TOKENS,
            COLUMNS=_power_of_2(width), num_warps=1,
        )  # fmt: skip
        ctx.save_for_backward(d_y)
        return error.sum()

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        return ctx.saved_tensors[0], None, None, None


class TreeShape:
    """Shape of a layer's trees and how they decide.

    Attributes
    ----------
    num_trees, depth : int
    nodes : int
        Rows of a tree: its nodes and one of padding, 2**(depth + 1), so that matrices keep their alignment.
    decides : bool
        Let decisions learn from the paths not taken.
    switch_cost : float
    """

    def __init__(self, num_trees: int, depth: int, decides: bool = True, switch_cost: float = 0.2) -> None:
        self.num_trees, self.depth, self.nodes = num_trees, depth, 2 ** (depth + 1)
        self.decides, self.switch_cost = decides and depth > 0, switch_cost


def _mix(
    weights: Tensor, leaf: Tensor, rows: Tensor, bias: Tensor | None, dtype: torch.dtype, trees: TreeShape
) -> Tensor:
    """Sum of the rows on each token's paths: weights (T, P, D + 1), rows (P * n, H) -> (T, H)."""
    (tokens, width), columns = (len(weights), rows.shape[1]), 128
    out = torch.empty(tokens, width, dtype=dtype, device=rows.device)
    kernels.mix_kernel[triton.cdiv(tokens, MIX_TOKENS), triton.cdiv(width, columns)](
        weights, leaf, rows, bias, out, tokens, trees.nodes, H=width, P=trees.num_trees, D=trees.depth,
        HAS_BIAS=bias is not None, TOKENS=MIX_TOKENS, COLUMNS=columns,
    )  # fmt: skip
    return out


class Trees(torch.autograd.Function):
    """FFF layer with GELU: x (T, H), w_in (P * n, H), b_in (P * n,), w_out (P * n, H), bias (H,) -> (T, H), (T, P).

    `lower` is x in `SCORE`. All scores are computed, and a token's path is read off them. Decisions learn from the
    other path of every level.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, lower: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, bias: Tensor, trees: TreeShape
    ) -> Any:
        tokens, p = len(x), trees.num_trees
        scores = torch.nn.functional.linear(lower, w_in.to(SCORE), b_in.to(SCORE))
        leaf = torch.empty(tokens, p, dtype=torch.int32, device=x.device)
        active = torch.empty(tokens, p, trees.depth + 1, dtype=torch.float32, device=x.device)
        kernels.walk_kernel[triton.cdiv(tokens, TOKENS), p](
            scores, leaf, active, tokens, scores.shape[1], trees.nodes, P=p, D=trees.depth, TOKENS=TOKENS, num_warps=1
        )  # fmt: skip
        low_in, low_out = w_in.to(HALF), w_out.to(HALF)
        ctx.save_for_backward(lower, low_in, low_out, scores, leaf)
        ctx.trees = trees
        ctx.mark_non_differentiable(leaf)
        ctx.set_materialize_grads(False)
        return _mix(active, leaf, low_out, bias, HALF, trees), leaf

    @staticmethod
    def backward(ctx: Any, dy: Tensor, _: Any) -> Any:
        x, w_in, w_out, scores, leaf = ctx.saved_tensors
        trees, tokens = ctx.trees, len(x)
        dy = dy.contiguous()
        slopes = dy @ w_out.t()
        rms = torch.linalg.vector_norm(dy, dim=1, dtype=torch.float32) / dy.shape[1] ** 0.5
        squares = torch.linalg.vector_norm(w_out, dim=1, dtype=torch.float32).square()
        d_scores, active = slopes.new_zeros(2, *slopes.shape)
        d_path = torch.empty(tokens, trees.num_trees, trees.depth + 1, dtype=torch.float32, device=x.device)
        kernels.walk_backward_kernel[triton.cdiv(tokens, TOKENS), trees.num_trees](
            scores, slopes, leaf, squares, rms, d_scores, active, d_path, trees.switch_cost, tokens, scores.shape[1],
            trees.nodes, P=trees.num_trees, D=trees.depth, LEVELS=_power_of_2(trees.depth + 1),
            DECIDES=trees.decides, TOKENS=TOKENS,
        )  # fmt: skip
        dx = _mix(d_path, leaf, w_in, None, torch.float32, trees)
        d_in, d_out = (d_scores.t() @ x.to(HALF)).float(), (active.t() @ dy).float()
        sums = d_scores.sum(0, dtype=torch.float32), dy.sum(0, dtype=torch.float32)
        return dx, None, d_in, sums[0], d_out, sums[1], None
