"""The NumPy specification of every kernel, slow and obvious: what the kernels are tested against.

``fff_forward`` is the layer of UltraFastBERT (arXiv 2311.10770) computed as its training code does: every node of
every tree, then a mask that keeps the visited ones. ``fff_walk`` visits only the nodes on each token's path.
``leaf_fff_forward`` is the earlier layer of arXiv 2308.14711. ``linear``, ``attention`` and the norms are the dense
parts of an encoder. Where the compiled kernels are missing, ``fff_walk`` and the dense functions take their place.
None of them checks its arguments: `ufbert.cmm`, `ufbert.leaf` and `ufbert.dense` do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .activations import IN_KERNELS, TABLE, Function
from .bfloat16 import narrow_bfloat16, round_to_bfloat16, widen_bfloat16
from .checks import keyword_only

__all__ = [
    "ACTIVATIONS", "DERIVATIVES", "attention", "fff_backward", "fff_forward", "fff_walk", "layer_norm",
    "leaf_fff_forward", "linear", "narrow_bfloat16", "rms_norm", "rotate", "round_to_bfloat16", "scale_norm",
    "widen_bfloat16",
]  # fmt: skip

SCORES_AT_ONCE = 1 << 20  # floats of attention scores: 4 MB
MASKED = np.float32(-10_000.0)  # what crammedBERT adds to the scores of masked keys
Array = NDArray[Any]

ACTIVATIONS: dict[str, Function] = {name: TABLE[name].exact or TABLE[name].function for name in IN_KERNELS}
"""The activations that a fast feedforward layer may have, by their names in this package."""

DERIVATIVES: dict[str, Function] = {name: act.derivative for name, act in TABLE.items() if act.derivative}
"""Their derivatives; ReLU's is 0 at 0."""


@keyword_only(5, "num_threads", "return_path", "activation", "return_scores")
def fff_forward(
    x: Array,
    w_in: Array,
    b_in: Array,
    w_out: Array,
    depth: int,
    *,
    activation: str = "gelu",
    num_threads: int | None = None,
    return_path: bool = False,
    return_scores: bool = False,
) -> Array | tuple[Array, ...]:
    """Fast feedforward layer, dense: all P x n scores, and a mask that keeps P x (depth + 1) of them.

    Parameters
    ----------
    x : (T, H) array
        Tokens.
    w_in : (P, n, H) array
        Input rows, n = 2**(depth + 1) - 1 nodes a tree in heap order.
    b_in : (P, n) array
        Input biases.
    w_out : (P, n, H_out) array
        Output rows.
    depth : int
        Levels below the root.
    activation : str
        A key of `ACTIVATIONS`.
    num_threads : int, optional
        Ignored. It is here so that the signature is the kernel's.
    return_path, return_scores : bool
        Also return the visited nodes, and their scores.

    Returns
    -------
    y : (T, H_out) array of x's dtype
        Sum over trees and visited nodes of ``activation(score) * w_out[node]``.
    path : (T, P, depth + 1) int32 array
        Only if `return_path`: the visited nodes from the root down.
    scores : (T, P, depth + 1) array
        Only if `return_scores`: before the activation.

    Notes
    -----
    A token goes right, to node 2i + 2, where its score is strictly positive; 0 and NaN go left, to 2i + 1.
    Weights of nodes that no token visits do not matter, as in the kernels, which never read them: where such a node
    holds NaN or infinity, 0 takes its place. arXiv 2311.10770, section 2.
    """
    num_tokens, num_trees = len(x), len(b_in)
    scores = np.einsum("th,pnh->tpn", x, w_in, optimize=True) + b_in  # (T, P, n)
    path = np.zeros((num_tokens, num_trees, depth + 1), np.int32)
    for level in range(depth):
        here = path[:, :, level]
        score = np.take_along_axis(scores, here[:, :, None], axis=2)[:, :, 0]
        path[:, :, level + 1] = 2 * here + 1 + (score > 0)
    visited = np.zeros(scores.shape, bool)
    np.put_along_axis(visited, path, True, axis=2)
    activated = np.zeros_like(scores)
    activated[visited] = ACTIVATIONS[activation](scores[visited])
    w_out = np.where(np.logical_or.reduce(visited)[:, :, None], w_out, 0)  # 0 * NaN would be NaN
    y = np.einsum("tpn,pno->to", activated, w_out, optimize=True).astype(x.dtype)  # (T, H_out)
    visited_scores = np.take_along_axis(scores, path, axis=2)
    return _chosen(y, (path, return_path), (visited_scores, return_scores))


@keyword_only(5, "num_threads", "return_path", "activation", "return_scores")
def fff_walk(
    x: Array,
    w_in: Array,
    b_in: Array,
    w_out: Array,
    depth: int,
    *,
    activation: str = "gelu",
    num_threads: int | None = None,
    return_path: bool = False,
    return_scores: bool = False,
) -> Array | tuple[Array, ...]:
    """Fast feedforward layer, sparse: gathers the rows of the visited nodes, level by level.

    Parameters and results are `fff_forward`'s. Memory: T x max(H, H_out) floats at a time.
    """
    num_trees = len(w_in)
    y = np.zeros((len(x), w_out.shape[2]), x.dtype)
    path = np.zeros((len(x), num_trees, depth + 1), np.int32)
    scores = np.zeros(path.shape, x.dtype)
    for tree in range(num_trees):
        node = np.zeros(len(x), np.int32)
        for level in range(depth + 1):
            path[:, tree, level] = node
            score = np.einsum("th,th->t", x, w_in[tree, node]) + b_in[tree, node]  # (T,)
            scores[:, tree, level] = score
            y += ACTIVATIONS[activation](score)[:, None] * w_out[tree, node]
            node = 2 * node + 1 + (score > 0)
    return _chosen(y, (path, return_path), (scores, return_scores))


def _chosen(y: Array, *extras: tuple[Array, bool]) -> Array | tuple[Array, ...]:
    """Y alone, or a tuple of it and the extras that were asked for."""
    chosen = [array for array, asked in extras if asked]
    return (y, *chosen) if chosen else y


@keyword_only(8, "activation", "num_threads", "tried", "switch_cost")
def fff_backward(
    dy: Array,
    x: Array,
    w_in: Array,
    b_in: Array,
    w_out: Array,
    depth: int,
    path: Array,
    scores: Array,
    *,
    activation: str = "gelu",
    num_threads: int | None = None,
    tried: Array | None = None,
    switch_cost: float = 0.0,
) -> tuple[Array, Array, Array, Array]:
    """Gradients of `fff_forward`, dense: those of all nodes, and a mask that keeps the visited ones.

    Parameters
    ----------
    dy : (T, H_out) array
        Gradient of the loss with respect to y.
    x, w_in, b_in, w_out, depth, activation
        As passed to `fff_forward`.
    path, scores : (T, P, depth + 1) arrays
        What it returned.
    num_threads : int, optional
        Ignored.
    tried : (T, P) integer array, optional
        For each token and tree a level above the last, whose decision gets a gradient too.
    switch_cost : float
        Standard deviations of the loss that are added to the path not taken.

    Returns
    -------
    dx, dw_in, db_in, dw_out : arrays of the shapes of x, w_in, b_in, w_out
        Without `tried`, decisions carry no gradient; with it, as `ufbert.cmm.fff_backward` describes.
    """
    visited_scores = np.zeros((len(x), *b_in.shape), x.dtype)  # (T, P, n)
    np.put_along_axis(visited_scores, path, scores.astype(x.dtype), axis=2)
    mask = np.zeros(visited_scores.shape, bool)
    np.put_along_axis(mask, path, True, axis=2)
    activated, slope = np.zeros_like(visited_scores), np.zeros_like(visited_scores)
    activated[mask] = ACTIVATIONS[activation](visited_scores[mask])
    slope[mask] = DERIVATIVES[activation](visited_scores[mask])
    d_scores = np.einsum("to,pno->tpn", dy, w_out, optimize=True) * slope
    if tried is not None:
        d_scores += _decision_gradients(dy, x, w_in, b_in, w_out, depth, path, scores, activation, tried, switch_cost)
    return (
        np.einsum("tpn,pnh->th", d_scores, w_in, optimize=True),
        np.einsum("tpn,th->pnh", d_scores, x, optimize=True),
        d_scores.sum(axis=0),
        np.einsum("tpn,to->pno", activated, dy, optimize=True),
    )


def _decision_gradients(
    dy: Array,
    x: Array,
    w_in: Array,
    b_in: Array,
    w_out: Array,
    depth: int,
    path: Array,
    scores: Array,
    activation: str,
    tried: Array,
    switch_cost: float,
) -> Array:
    """Gradients of the scores that decide at the levels tried, (T, P, n)."""
    gradients = np.zeros((len(x), *b_in.shape), x.dtype)
    for token, tree in np.ndindex(tried.shape):
        level = tried[token, tree]
        score = float(scores[token, tree, level])
        losses, square = [], 0.0
        for right in (False, True):
            node, y = 2 * path[token, tree, level] + 1 + right, np.zeros(w_out.shape[2], x.dtype)
            for _ in range(level + 1, depth + 1):
                value = x[token : token + 1] @ w_in[tree, node] + b_in[tree, node]  # (1,)
                active = ACTIVATIONS[activation](value)
                y = y + active * w_out[tree, node]
                square += active[0] ** 2 * np.sum(w_out[tree, node] ** 2)
                node = 2 * node + 1 + (value[0] > 0)
            losses.append(dy[token] @ y)
        losses[not score > 0] += switch_cost * np.sqrt(np.mean(dy[token] ** 2) * square)
        density = np.exp(-0.5 * score**2) / np.sqrt(2 * np.pi)
        gradients[token, tree, path[token, tree, level]] = density * depth * (losses[1] - losses[0])
    return gradients


@keyword_only(8, "activation")
def leaf_fff_forward(
    x: Array,
    node_weights: Array,
    node_biases: Array,
    w1s: Array,
    b1s: Array,
    w2s: Array,
    b2s: Array | None,
    depth: int,
    *,
    activation: str = "relu",
) -> Array:
    """The layer of arXiv 2308.14711 in evaluation mode: nodes decide, one small dense block a leaf computes.

    Parameters
    ----------
    x : (T, H) array
        Tokens.
    node_weights, node_biases : (2**depth - 1, H), (2**depth - 1,) arrays
        A token goes right where its score is >= 0 (not strictly: unlike `fff_forward`).
    w1s, b1s : (2**depth, H, leaf_width), (2**depth, leaf_width) arrays
        First layer of each leaf.
    w2s : (2**depth, leaf_width, H_out) array
        Second layer of each leaf.
    b2s : (2**depth, H_out) array or None
        Output bias of each leaf, or None for none.
    depth : int
        Levels of deciding nodes.
    activation : str
        A key of `ACTIVATIONS`.

    Returns
    -------
    (T, H_out) array of x's dtype
    """
    y = np.zeros((len(x), w2s.shape[2]), x.dtype)
    for token in range(len(x)):
        node = 0
        for _ in range(depth):
            score = x[token] @ node_weights[node] + node_biases[node]
            node = 2 * node + 1 + int(score >= 0)
        leaf = node - (2**depth - 1)
        hidden = ACTIVATIONS[activation](x[token] @ w1s[leaf] + b1s[leaf])
        y[token] = hidden @ w2s[leaf] + (0 if b2s is None else b2s[leaf])
    return y


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """``x @ weight.T + bias``: (..., I) by (O, I) and (O,) -> (..., O) float32."""
    y = x @ weight.T
    if bias is not None:
        y += bias
    return y


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Layer normalisation over the last axis: (T, H) -> (T, H). arXiv 1607.06450."""
    y: Array = x - x.mean(axis=-1, keepdims=True)
    variance = np.einsum("...h,...h->...", y, y)[..., None] / np.float32(x.shape[-1])
    y *= 1.0 / np.sqrt(variance + np.float32(eps))
    y *= weight
    y += bias
    return y


def rms_norm(x: Array, scale: Array, eps: float) -> Array:
    """Root-mean-square normalisation over the last axis: (T, H) -> (T, H). arXiv 1910.07467."""
    mean_square = np.einsum("...h,...h->...", x, x)[..., None] / np.float32(x.shape[-1])
    y: Array = x * (1.0 / np.sqrt(mean_square + np.float32(eps))) * scale
    return y


def scale_norm(x: Array, scale: Array, eps: float) -> Array:
    """Division by the Euclidean norm, times one learned number: (T, H) -> (T, H). arXiv 1910.05895."""
    norm = np.sqrt(np.einsum("...h,...h->...", x, x))[..., None]
    y: Array = x * scale / np.maximum(norm, np.float32(eps))
    return y


def attention(
    qkv: Array,
    cu_seqlens: Array,
    num_heads: int,
    scale: float,
    attended: Array | None = None,
    distance_bias: Array | None = None,
    rotations: Array | None = None,
    window: int | None = None,
) -> Array:
    """Softmax attention of each text on itself. arXiv 1706.03762, section 3.2.1.

    Parameters
    ----------
    qkv : (T, 3H) float32 array
        Queries, keys and values side by side, each ``num_heads`` blocks of ``H / num_heads`` columns.
    cu_seqlens : (N + 1,) integer array
        Where each text begins and ends.
    num_heads : int
    scale : float
        Factor of the scores, normally ``head_size ** -0.5``.
    attended : (T,) bool array, optional
        False for tokens that nothing attends to.
    distance_bias : (heads, 2R + 1) array, optional
        What is added to a score by how far the key stands behind the query, from -R to R; R + 1 tokens are the longest
        text. arXiv 2004.09297, 1910.10683.
    rotations : (positions, H / heads) array, optional
        By which angle each pair of columns (j, half + j) of a query or key is turned at a position of the text: half
        the columns are cosines, then as many sines. arXiv 2104.09864.
    window : int, optional
        How far a key may stand from its query; None for any distance. arXiv 2004.05150.

    Returns
    -------
    (T, H) float32 array

    Notes
    -----
    Needs some 4 MB of scratch, or 4 * num_heads * S**2 bytes for one text of S tokens where that is more.
    """
    tokens, width = qkv.shape[0], qkv.shape[1] // 3
    head_size = width // num_heads
    context = np.empty((tokens, width), np.float32)
    for start, texts, length in _equal_lengths(cu_seqlens, num_heads):
        rows = slice(start, start + texts * length)
        q, k, v = qkv[rows].reshape(texts, length, 3, num_heads, head_size).transpose(2, 0, 3, 1, 4)
        if rotations is not None:
            q, k = rotate(q, rotations[:length]), rotate(k, rotations[:length])
        scores = q @ k.swapaxes(-1, -2)  # (texts, heads, S, head_size) x (.., head_size, S) -> (texts, heads, S, S)
        scores *= np.float32(scale)
        distances = np.arange(length) - np.arange(length)[:, None]  # (S, S)
        if distance_bias is not None:
            scores += distance_bias[:, distances + distance_bias.shape[1] // 2]
        if window is not None:
            scores[..., np.abs(distances) > window] = -np.inf
        if attended is not None:
            scores += np.where(attended[rows].reshape(texts, 1, 1, length), np.float32(0), MASKED)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        weighted = scores @ v  # (texts, heads, S, S) x (.., S, head_size)
        weighted /= scores.sum(axis=-1, keepdims=True)
        context[rows].reshape(texts, length, num_heads, head_size)[...] = weighted.swapaxes(1, 2)
    return context


def rotate(x: Array, rotations: Array) -> Array:
    """Turn pairs of columns by their positions: (..., S, size) by (S, size); see `attention`."""
    half = x.shape[-1] // 2
    first, second, cosines, sines = x[..., :half], x[..., half:], rotations[:, :half], rotations[:, half:]
    return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)


def _equal_lengths(cu_seqlens: Array, num_heads: int) -> Iterator[tuple[int, int, int]]:
    """Runs of neighbouring texts of one length, so that one call serves all: first token, texts, length."""
    starts = cu_seqlens.tolist()
    first = 0
    for text in range(len(starts) - 1):
        length = starts[first + 1] - starts[first]
        is_last = text + 2 == len(starts)
        full = (text + 2 - first) * num_heads * length * length > SCORES_AT_ONCE
        if is_last or full or starts[text + 2] - starts[text + 1] != length:
            if length:
                yield starts[first], text + 1 - first, length
            first = text + 1
