"""The conditional-matmul layers in plain NumPy, slow and obvious: what the kernels are tested against.

``fff_forward`` is the layer of UltraFastBERT (arXiv 2311.10770) computed as its training code does: every node of
every tree, then a mask that keeps the visited ones. ``leaf_fff_forward`` is the earlier layer of arXiv 2308.14711.
``fff_walk`` visits only the nodes on each token's path; it is what runs where the compiled extension is missing.
None of them checks its arguments: `ufbert.cmm` is the checked door.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "ACTIVATIONS",
    "DERIVATIVES",
    "fff_backward",
    "fff_forward",
    "fff_walk",
    "leaf_fff_forward",
    "round_to_bfloat16",
]

_erf: Any = np.frompyfunc(math.erf, 1, 1)  # exact, and slow: one Python call an element


def _gelu(x: np.ndarray) -> np.ndarray:
    return (0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)).astype(x.dtype))).astype(x.dtype)


def _silu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x / (1.0 + np.exp(-x))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": _gelu,
    "relu": lambda x: np.maximum(x, 0),
    "silu": _silu,
    "tanh": np.tanh,
}
"""The activations that a fast feedforward layer may have, by their names in this package."""


def _gelu_derivative(x: np.ndarray) -> np.ndarray:
    cdf = 0.5 * (1.0 + _erf(x / math.sqrt(2.0)).astype(x.dtype))
    return (cdf + x * np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)).astype(x.dtype)


def _silu_derivative(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        sigmoid = 1.0 / (1.0 + np.exp(-x))
    return sigmoid * (1.0 + x * (1.0 - sigmoid))


DERIVATIVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": _gelu_derivative,
    "relu": lambda x: (x > 0).astype(x.dtype),
    "silu": _silu_derivative,
    "tanh": lambda x: 1.0 - np.tanh(x) ** 2,
}
"""Their derivatives; ReLU's is 0 at 0."""


def fff_forward(
    x, w_in, b_in, w_out, depth, num_threads=None, return_path=False, activation="gelu", return_scores=False
):
    """Fast feedforward layer, dense: all P x n scores, of which the mask keeps P x (depth + 1).

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
    num_threads : None
        Ignored; here so that the signature is the kernel's.
    return_path, return_scores : bool
        Also return the visited nodes, and their scores.
    activation : str
        A key of `ACTIVATIONS`.

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
    w_out = np.where(visited.any(axis=0)[:, :, None], w_out, 0)  # 0 * NaN would be NaN
    y = np.einsum("tpn,pno->to", activated, w_out, optimize=True).astype(x.dtype)  # (T, H_out)
    visited_scores = np.take_along_axis(scores, path, axis=2)
    return _chosen(y, (path, return_path), (visited_scores, return_scores))


def fff_walk(x, w_in, b_in, w_out, depth, num_threads=None, return_path=False, activation="gelu", return_scores=False):
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


def _chosen(y, *extras):
    """y alone, or a tuple of it and the extras that were asked for."""
    chosen = [array for array, asked in extras if asked]
    return (y, *chosen) if chosen else y


def fff_backward(
    dy, x, w_in, b_in, w_out, depth, path, scores, activation="gelu", num_threads=None, tried=None, switch_cost=0.0
):
    """Gradients of `fff_forward`, dense: those of all nodes, of which a mask keeps the visited ones.

    Parameters
    ----------
    dy : (T, H_out) array
        Gradient of the loss with respect to y.
    x, w_in, b_in, w_out, depth, activation
        As passed to `fff_forward`.
    path, scores : (T, P, depth + 1) arrays
        What it returned.
    num_threads : None
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


def _decision_gradients(dy, x, w_in, b_in, w_out, depth, path, scores, activation, tried, switch_cost):
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


def round_to_bfloat16(array):
    """The nearest bfloat16 values, ties to even, as float32; NaN stays NaN.

    Parameters
    ----------
    array : float32 array

    Returns
    -------
    float32 array of the same shape
    """
    array = np.ascontiguousarray(array, np.float32)
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return np.where(np.isnan(array), array, rounded.astype(np.uint32).view(np.float32))


def leaf_fff_forward(x, node_weights, node_biases, w1s, b1s, w2s, b2s, depth, activation="relu"):
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
