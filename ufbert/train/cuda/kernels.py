"""Triton kernels of the training step: attention in packed rows, residual sum and norm, walks through trees, errors."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "attention_backward_kernel",
    "attention_kernel",
    "error_kernel",
    "mix_kernel",
    "norm_backward_kernel",
    "norm_kernel",
    "walk_backward_kernel",
    "walk_kernel",
]


@triton.jit
def _normal_cdf(x):
    return 0.5 * (1.0 + tl.math.erf(x * 0.7071067811865476))


@triton.jit
def _normal_density(x):
    return 0.3989422804014327 * tl.exp(-0.5 * x * x)


@triton.jit
def walk_kernel(scores, leaf, active, num_tokens, row, n, P: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr):
    """Walk each token through one tree: scores (T, P * n) -> leaf (T, P), active (T, P, D + 1) = gelu(scores)."""
    token, tree = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS), tl.program_id(1)
    inside = token < num_tokens
    place = scores + token.to(tl.int64) * row + tree * n
    node = tl.zeros([TOKENS], tl.int32)
    out = active + (token * P + tree) * (D + 1)
    for level in tl.static_range(D + 1):
        s = tl.load(place + node, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + level, s * _normal_cdf(s), mask=inside)
        if level < D:
            node = 2 * node + 1 + (s > 0).to(tl.int32)
    tl.store(leaf + token * P + tree, node, mask=inside)


@triton.jit
def mix_kernel(
    weights, leaf, rows, bias, out, num_tokens, n, H: tl.constexpr, P: tl.constexpr, D: tl.constexpr,
    HAS_BIAS: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sum the rows of each token's paths: weights (T, P, D + 1), rows (P * n, H) -> out (T, H)."""
    token, column = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS), tl.program_id(1) * COLUMNS
    column += tl.arange(0, COLUMNS)
    inside, whole = token < num_tokens, column < H
    total = tl.zeros([TOKENS, COLUMNS], tl.float32)
    for tree in range(P):
        last = tl.load(leaf + token * P + tree, mask=inside, other=0) + 1
        first = weights + (token * P + tree) * (D + 1)
        for level in tl.static_range(D + 1):
            node = tree * n + (last >> (D - level)) - 1
            node = tl.maximum(node, 0)
            weight = tl.load(first + level, mask=inside, other=0.0)
            line = tl.load(rows + node.to(tl.int64)[:, None] * H + column[None, :], mask=whole[None, :], other=0.0)
            total += weight[:, None] * line.to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=whole, other=0.0)[None, :]
    place = out + token.to(tl.int64)[:, None] * H + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside[:, None] & whole[None, :])


@triton.jit
def walk_backward_kernel(
    scores, slopes, leaf, squares, rms, d_scores, active, d_path, switch_cost, num_tokens, row, n,
    P: tl.constexpr, D: tl.constexpr, LEVELS: tl.constexpr, DECIDES: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Gradients of one tree's scores, and of its decisions at every level.

    scores, slopes = dL/d(activation): (T, P * n); leaf (T, P); squares (P * n,) of the output rows' norms; rms (T,) of
    dL/dy. Writes the visited nodes of d_scores and active (T, P * n), and d_path (T, P, D + 1).
    """
    token, tree = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS), tl.program_id(1)
    level = tl.arange(0, LEVELS)[None, :]
    inside = (token < num_tokens)[:, None]
    start = token.to(tl.int64)[:, None] * row + tree * n
    last = tl.load(leaf + token * P + tree, mask=token < num_tokens, other=0)[:, None] + 1
    on_path = inside & (level <= D)
    node = tl.maximum((last >> tl.maximum(D - level, 0)) - 1, 0)
    s = tl.load(scores + start + node, mask=on_path, other=0.0).to(tl.float32)
    slope = tl.load(slopes + start + node, mask=on_path, other=0.0).to(tl.float32)
    density, cdf = _normal_density(s), _normal_cdf(s)
    act = s * cdf
    ds = slope * (cdf + s * density)
    if DECIDES:
        value = slope * act
        taken = tl.sum(value, 1)[:, None] - tl.cumsum(value, 1)  # of the nodes below each level
        size = act * act * tl.load(squares + tree * n + node, mask=on_path, other=0.0)
        taken_size = tl.sum(size, 1)[:, None] - tl.cumsum(size, 1)
        decides = inside & (level < D)
        right = ((last >> tl.maximum(D - 1 - level, 0)) & 1) == 1
        other = tl.zeros([TOKENS, LEVELS], tl.float32)
        other_size = tl.zeros([TOKENS, LEVELS], tl.float32)
        walk = tl.where(decides, 2 * node + 1 + tl.where(right, 0, 1), 0)
        for step in range(D):
            walks = inside & (level < D - step)
            s_walk = tl.load(scores + start + walk, mask=walks, other=0.0).to(tl.float32)
            a_walk = s_walk * _normal_cdf(s_walk)
            other += a_walk * tl.load(slopes + start + walk, mask=walks, other=0.0).to(tl.float32)
            other_size += a_walk * a_walk * tl.load(squares + tree * n + walk, mask=walks, other=0.0)
            walk = tl.where(level < D - step - 1, 2 * walk + 1 + (s_walk > 0).to(tl.int32), 0)
        spread = tl.load(rms + token, mask=token < num_tokens, other=0.0)[:, None]
        other += switch_cost * spread * tl.sqrt(tl.maximum(other_size + taken_size, 0.0))
        ds += tl.where(decides, density * tl.where(right, taken - other, other - taken), 0.0)
    tl.store(d_scores + start + node, ds.to(d_scores.dtype.element_ty), mask=on_path)
    tl.store(active + start + node, act.to(active.dtype.element_ty), mask=on_path)
    tl.store(d_path + (token[:, None] * P + tree) * (D + 1) + level, ds, mask=on_path)


@triton.jit
def norm_kernel(
    x, delta, weight, bias, out, half, mean, scale, eps, num_tokens, H: tl.constexpr, HAS_DELTA: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Layer norm of x + delta (T, H) -> out, half (the same in another dtype), mean and 1 / deviation (T,)."""
    token, column = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS), tl.arange(0, COLUMNS)
    inside, whole = token < num_tokens, column < H
    mask = inside[:, None] & whole[None, :]
    place = token.to(tl.int64)[:, None] * H + column[None, :]
    total = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    if HAS_DELTA:
        total += tl.load(delta + place, mask=mask, other=0.0).to(tl.float32)
    middle = tl.sum(total, 1) / H
    centred = tl.where(mask, total - middle[:, None], 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 1) / H + eps)
    w, b = tl.load(weight + column, mask=whole, other=0.0), tl.load(bias + column, mask=whole, other=0.0)
    y = centred * inverse[:, None] * w[None, :] + b[None, :]
    tl.store(out + place, y.to(out.dtype.element_ty), mask=mask)
    tl.store(half + place, y.to(half.dtype.element_ty), mask=mask)
    tl.store(mean + token, middle, mask=inside)
    tl.store(scale + token, inverse, mask=inside)


@triton.jit
def norm_backward_kernel(
    dy, dy_half, x, delta, weight, mean, scale, dx, d_delta, d_weight, d_bias, num_tokens, H: tl.constexpr,
    HAS_DY: tl.constexpr, HAS_HALF: tl.constexpr, HAS_DELTA: tl.constexpr, ROUNDS: tl.constexpr,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Gradient of `norm_kernel`; a program adds up d_weight and d_bias of TOKENS * ROUNDS tokens (programs, H).

    dx (T, H) is also written to d_delta, in its dtype.
    """
    program, column = tl.program_id(0), tl.arange(0, COLUMNS)
    whole = column < H
    w = tl.load(weight + column, mask=whole, other=0.0)[None, :]
    sum_weight, sum_bias = tl.zeros([COLUMNS], tl.float32), tl.zeros([COLUMNS], tl.float32)
    for turn in range(ROUNDS):
        token = (program * ROUNDS + turn) * TOKENS + tl.arange(0, TOKENS)
        inside = token < num_tokens
        mask = inside[:, None] & whole[None, :]
        place = token.to(tl.int64)[:, None] * H + column[None, :]
        total = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
        if HAS_DELTA:
            total += tl.load(delta + place, mask=mask, other=0.0).to(tl.float32)
        inverse = tl.load(scale + token, mask=inside, other=0.0)[:, None]
        normal = tl.where(mask, (total - tl.load(mean + token, mask=inside, other=0.0)[:, None]) * inverse, 0.0)
        g = tl.zeros([TOKENS, COLUMNS], tl.float32)
        if HAS_DY:
            g += tl.load(dy + place, mask=mask, other=0.0).to(tl.float32)
        if HAS_HALF:
            g += tl.load(dy_half + place, mask=mask, other=0.0).to(tl.float32)
        sum_weight += tl.sum(g * normal, 0)
        sum_bias += tl.sum(g, 0)
        g *= w
        d = (g - (tl.sum(g, 1) / H)[:, None] - normal * (tl.sum(g * normal, 1) / H)[:, None]) * inverse
        d = tl.where(mask, d, 0.0)
        tl.store(dx + place, d.to(dx.dtype.element_ty), mask=mask)
        if HAS_DELTA:
            tl.store(d_delta + place, d.to(d_delta.dtype.element_ty), mask=mask)
    tl.store(d_weight + program * H + column, sum_weight, mask=whole)
    tl.store(d_bias + program * H + column, sum_bias, mask=whole)


@triton.jit
def error_kernel(
    y, wanted, inverse_scale, weight, d_y, error, num_tokens, H: tl.constexpr, TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Squared errors of scaled coordinates: error (T,) = weight * mean(e**2), d_y (T, H) its gradient by y."""
    token, column = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS), tl.arange(0, COLUMNS)
    inside, whole = token < num_tokens, column < H
    mask = inside[:, None] & whole[None, :]
    place = token.to(tl.int64)[:, None] * H + column[None, :]
    factor = tl.load(inverse_scale + column, mask=whole, other=0.0)[None, :]
    e = tl.load(y + place, mask=mask, other=0.0).to(tl.float32)
    e = (e - tl.load(wanted + place, mask=mask, other=0.0).to(tl.float32)) * factor
    share = tl.load(weight + token, mask=inside, other=0.0)
    tl.store(error + token, tl.sum(e * e, 1) / H * share, mask=inside)
    tl.store(d_y + place, (2.0 / H * share)[:, None] * e * factor, mask=mask)


@triton.jit
def _probabilities(qkv, segment, first, head, scale, W: tl.constexpr, ROW: tl.constexpr, HEAD: tl.constexpr):
    """q, k, v (ROW, HEAD) of a head and the softmax (ROW, ROW) between tokens of the same segment."""
    token, column = first + tl.arange(0, ROW), tl.arange(0, HEAD)
    place = qkv + token.to(tl.int64)[:, None] * (3 * W) + head * HEAD + column[None, :]
    q, k, v = tl.load(place), tl.load(place + W), tl.load(place + 2 * W)
    mine = tl.load(segment + token)
    score = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    score = tl.where(mine[:, None] == mine[None, :], score, float("-inf"))
    p = tl.exp(score - tl.max(score, 1)[:, None])
    return q, k, v, p / tl.sum(p, 1)[:, None]


@triton.jit
def attention_kernel(qkv, segment, out, scale, W: tl.constexpr, ROW: tl.constexpr, HEAD: tl.constexpr):
    """Self-attention in rows of ROW tokens, each to the tokens of its own segment: qkv (T, 3 * W) -> out (T, W)."""
    first, head = tl.program_id(0) * ROW, tl.program_id(1)
    q, k, v, p = _probabilities(qkv, segment, first, head, scale, W, ROW, HEAD)
    token, column = first + tl.arange(0, ROW), tl.arange(0, HEAD)
    place = out + token.to(tl.int64)[:, None] * W + head * HEAD + column[None, :]
    tl.store(place, tl.dot(p.to(v.dtype), v, input_precision="ieee").to(out.dtype.element_ty))


@triton.jit
def attention_backward_kernel(
    qkv, segment, d_out, d_qkv, scale, W: tl.constexpr, ROW: tl.constexpr, HEAD: tl.constexpr
):
    """Gradient of `attention_kernel`: d_out (T, W) -> d_qkv (T, 3 * W)."""
    first, head = tl.program_id(0) * ROW, tl.program_id(1)
    q, k, v, p = _probabilities(qkv, segment, first, head, scale, W, ROW, HEAD)
    token, column = first + tl.arange(0, ROW), tl.arange(0, HEAD)
    dy = tl.load(d_out + token.to(tl.int64)[:, None] * W + head * HEAD + column[None, :])
    place = d_qkv + token.to(tl.int64)[:, None] * (3 * W) + head * HEAD + column[None, :]
    dv = tl.dot(tl.trans(p.to(dy.dtype)), dy, input_precision="ieee")
    tl.store(place + 2 * W, dv.to(d_qkv.dtype.element_ty))
    dp = tl.dot(dy, tl.trans(v), input_precision="ieee")
    ds = (p * (dp - tl.sum(p * dp, 1)[:, None]) * scale).to(q.dtype)
    tl.store(place, tl.dot(ds, k, input_precision="ieee").to(d_qkv.dtype.element_ty))
    tl.store(place + W, tl.dot(tl.trans(ds), q, input_precision="ieee").to(d_qkv.dtype.element_ty))
