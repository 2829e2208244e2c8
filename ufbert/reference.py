"""The conditional-matmul layers in plain NumPy, slow and obvious: what the kernels are tested against.

``fff_forward`` is the layer of UltraFastBERT (arXiv 2311.10770) computed as its training code does: every node of
every tree, then a mask that keeps the visited ones. ``leaf_fff_forward`` is the earlier layer of arXiv 2308.14711.
``fff_walk`` visits only the nodes on each token's path; it is what runs where the compiled extension is missing.
None of them checks its arguments: `ufbert.cmm` is the checked door.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

__all__ = ["ACTIVATIONS", "fff_forward", "fff_walk", "leaf_fff_forward"]

_erf = np.frompyfunc(math.erf, 1, 1)  # exact, and slow: one Python call an element


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


def fff_forward(x, w_in, b_in, w_out, depth, num_threads=None, return_path=False, activation="gelu"):
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
    return_path : bool
        Also return the visited nodes.
    activation : str
        A key of `ACTIVATIONS`.

    Returns
    -------
    y : (T, H_out) array of x's dtype
        Sum over trees and visited nodes of ``activation(score) * w_out[node]``.
    path : (T, P, depth + 1) int32 array
        Only if `return_path`: the visited nodes from the root down.

    Notes
    -----
    A token goes right, to node 2i + 2, where its score is strictly positive; 0 and NaN go left, to 2i + 1.
    Weights of nodes that no token visits are multiplied by 0 here, so they must be finite; the kernels never read
    them. arXiv 2311.10770, section 2.
    """
    num_tokens, num_trees, num_nodes = len(x), *b_in.shape
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
    y = np.einsum("tpn,pno->to", activated, w_out, optimize=True).astype(x.dtype)  # (T, H_out)
    return (y, path) if return_path else y


def fff_walk(x, w_in, b_in, w_out, depth, num_threads=None, return_path=False, activation="gelu"):
    """Fast feedforward layer, sparse: gathers the rows of the visited nodes, level by level.

    Parameters and results are `fff_forward`'s. Memory: T x max(H, H_out) floats at a time.
    """
    num_trees = len(w_in)
    y = np.zeros((len(x), w_out.shape[2]), x.dtype)
    path = np.zeros((len(x), num_trees, depth + 1), np.int32)
    for tree in range(num_trees):
        node = np.zeros(len(x), np.int32)
        for level in range(depth + 1):
            path[:, tree, level] = node
            score = np.einsum("th,th->t", x, w_in[tree, node]) + b_in[tree, node]  # (T,)
            y += ACTIVATIONS[activation](score)[:, None] * w_out[tree, node]
            node = 2 * node + 1 + (score > 0)
    return (y, path) if return_path else y


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
