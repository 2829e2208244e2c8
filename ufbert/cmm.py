"""Conditional matrix multiplication: the checked door to the compiled kernels.

Every check and every message is on this side; the kernels assume. Where the compiled extension is missing, the same
functions run in NumPy (`ufbert.reference.fff_walk`), slower and with the same results to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _door, reference
from ._door import _cmm, active_isa, openmp_version, supported_isas, use_isa
from .errors import InputError
from .packed import PackedFFF

__all__ = [
    "PackedFFF",
    "active_isa",
    "fff_backward",
    "fff_forward",
    "leaf_fff_forward",
    "load_leaf_fff",
    "node_visits",
    "openmp_version",
    "smallest_margin",
    "supported_isas",
    "use_isa",
]


def fff_forward(
    x: Any,
    w_in: Any,
    b_in: Any,
    w_out: Any,
    depth: int,
    num_threads: int | None = None,
    return_path: bool = False,
    activation: str = "gelu",
    return_scores: bool = False,
) -> Any:
    """Fast feedforward layer of UltraFastBERT: each token visits depth + 1 nodes of each tree.

    Parameters
    ----------
    x : (T, H) array
        Tokens.
    w_in : (P, n, H) array
        Input rows of P trees with n = 2**(depth + 1) - 1 nodes in heap order (children of i: 2i + 1, 2i + 2).
    b_in : (P, n) array
        Input biases.
    w_out : (P, n, H_out) array
        Output rows.
    depth : int
        Levels below the root, 0 to 24.
    num_threads : int, optional
        Threads at most; None for `ufbert.threads.get_num_threads`. The result does not depend on it.
    return_path, return_scores : bool
        Also return the visited nodes, and their scores before the activation.
    activation : {"gelu", "relu", "silu", "tanh"}
        "gelu" is the exact one, with erf.

    Returns
    -------
    y : (T, H_out) float32 array
    path : (T, P, depth + 1) int32 array
        Only if `return_path`.
    scores : (T, P, depth + 1) float32 array
        Only if `return_scores`.

    Raises
    ------
    InputError
        If a shape, a dtype or another argument does not fit.

    Notes
    -----
    A token goes right where its score is strictly positive; 0 and NaN go left. Arrays that are not C-contiguous
    float32 are copied first, so keep weights that way. Rows of nodes that no token visits are never read. Bitwise
    the same for every split of a batch and every number of threads. arXiv 2311.10770.
    """
    depth = _door.checked_depth(depth)
    w_in, b_in, w_out = _door.layer_arrays(w_in, b_in, w_out, depth)
    _door.check_activation(activation)
    x = _door.tokens_array(x, w_in.shape[2])
    trees, width = len(w_in), w_out.shape[2]
    work = len(x) * trees * (depth + 1) * (x.shape[1] + width)
    y = _door.output_array(None, x, width)
    path = np.empty((len(x), trees, depth + 1), np.int32) if return_path else None
    scores = np.empty((len(x), trees, depth + 1), np.float32) if return_scores else None
    if _cmm is None or min(*x.shape, trees, width) == 0:
        y, path, scores = reference.fff_walk(x, w_in, b_in, w_out, depth, None, True, activation, True)
    else:
        num_threads = _door.num_threads_for(work, num_threads)
        _cmm.fff_forward(x, w_in, b_in, w_out, depth, _cmm.ACTIVATIONS[activation], num_threads, y, path, scores)
    results = (y,) + (path,) * bool(return_path) + (scores,) * bool(return_scores)
    return results if len(results) > 1 else y


def fff_backward(
    dy: Any,
    x: Any,
    w_in: Any,
    b_in: Any,
    w_out: Any,
    depth: int,
    path: Any,
    scores: Any,
    activation: str = "gelu",
    num_threads: int | None = None,
    tried: Any = None,
    switch_cost: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `fff_forward` through the nodes that the tokens visited, and through decisions if asked for.

    Parameters
    ----------
    dy : (T, H_out) array
        Gradient of the loss with respect to y.
    x, w_in, b_in, w_out, depth, activation, num_threads
        As passed to `fff_forward`.
    path, scores : (T, P, depth + 1) int32 and float32 arrays
        What `fff_forward` returned with ``return_path=True, return_scores=True``.
    tried : (T, P) integer array, optional
        For each token and tree a level, 0 to depth - 1, whose decision gets a gradient too. Draw them uniformly.
    switch_cost : float
        From 0: what is added to the loss of the path not taken, in standard deviations; see the notes.

    Returns
    -------
    dx : (T, H) float32 array
    dw_in : (P, n, H) float32 array
    db_in : (P, n) float32 array
    dw_out : (P, n, H_out) float32 array
        Zero, and on most systems without memory behind it, at nodes that no token visited.

    Raises
    ------
    InputError
        If a shape, a dtype, a node of `path` or another argument does not fit.

    Notes
    -----
    Without `tried`, decisions carry no gradient: it flows through the activations of visited nodes only, as in the
    authors' training code.

    With it, a token is also walked down the path that it did not take at the level tried, and that node's score
    gets ``normal_density(score) * depth * (loss of going right - loss of going left)``: to the first order in the
    change of y, and in the mean over uniform draws, the gradient that all decisions would get if each, with the
    others as they are, were made after adding standard normal noise to its score. A path's loss is dy . y, summed
    below the deciding node. First order leaves out that a change of y is costly whichever way it goes;
    ``switch_cost * |dy| / sqrt(H_out) * |change|``, where squared lengths of rows are summed as if orthogonal, is
    added to the path not taken for it. Rows of the paths not taken are read, and get no gradient of their own.

    Each node's gradients are summed in one order, by leaf, so the result is the same bits for every number of threads.
    arXiv 2311.10770, section 2.
    """
    depth = _door.checked_depth(depth)
    w_in, b_in, w_out = _door.layer_arrays(w_in, b_in, w_out, depth)
    _door.check_activation(activation)
    x = _door.tokens_array(x, w_in.shape[2])
    dy = _door.float32_array(dy, "dy", 2)
    _door.check_shape(dy, "dy", (len(x), w_out.shape[2]), "(T, H_out)")
    path, scores = _checked_visits(path, scores, (len(x), len(w_in), depth + 1), b_in.shape[1])
    if tried is not None:
        tried = _checked_levels(tried, (len(x), len(w_in)), depth)
        _check_switch_cost(switch_cost)
    if _cmm is None or min(*x.shape, *w_in.shape, *dy.shape) == 0:
        return reference.fff_backward(
            dy, x, w_in, b_in, w_out, depth, path, scores, activation, None, tried, switch_cost
        )
    num_threads = _door.num_threads_for(3 * scores.size * (x.shape[1] + dy.shape[1]), num_threads)
    dx = _door.on_cache_lines(np.empty, x.shape)
    # np.zeros leaves the clearing to the system, page by page as they are written.
    dw_in, db_in, dw_out = (_door.on_cache_lines(np.zeros, array.shape) for array in (w_in, b_in, w_out))
    code = _cmm.ACTIVATIONS[activation]
    decisions: tuple[np.ndarray, ...] = ()
    if tried is not None:
        costs = np.sqrt(np.einsum("to,to->t", dy, dy) / dy.shape[1]) * np.float32(switch_cost)
        decisions = (tried, np.einsum("pno,pno->pn", w_out, w_out), costs)
    _cmm.fff_backward(
        dy, x, w_in, b_in, w_out, depth, path, scores, code, num_threads, dx, dw_in, db_in, dw_out, *decisions
    )
    return dx, dw_in, db_in, dw_out


def node_visits(path: Any, num_nodes: int) -> np.ndarray:
    """Count how often each node was visited.

    Parameters
    ----------
    path : (T, P, depth + 1) integer array
        From `fff_forward` or a `PackedFFF` with ``return_path=True``.
    num_nodes : int
        Nodes of a tree, n.

    Returns
    -------
    (P, n) int64 array
        Each tree's row sums to T * (depth + 1).
    """
    path = np.asarray(path)
    trees = [np.bincount(path[:, tree].ravel(), minlength=num_nodes) for tree in range(path.shape[1])]
    return np.stack(trees) if trees else np.zeros((0, num_nodes), np.int64)


def smallest_margin(scores: Any) -> float:
    """How near a decision came to the other side.

    Parameters
    ----------
    scores : (T, P, depth + 1) array
        From `fff_forward` or a `PackedFFF` with ``return_scores=True``.

    Returns
    -------
    float
        The smallest absolute score of a node that decides, that is above the last level; infinity if there is
        none. Two correct implementations may choose different paths where it is no larger than their rounding.
    """
    deciding = np.abs(np.asarray(scores)[:, :, :-1])
    return float(np.min(deciding, initial=np.inf, where=~np.isnan(deciding)))


def leaf_fff_forward(
    x: Any,
    node_weights: Any,
    node_biases: Any,
    w1s: Any,
    b1s: Any,
    w2s: Any,
    b2s: Any = None,
    depth: int | None = None,
    activation: str = "relu",
    num_threads: int | None = None,
    output_bias: bool = False,
) -> np.ndarray:
    """Fast feedforward layer of arXiv 2308.14711, in evaluation mode: nodes decide, one leaf block computes.

    Parameters
    ----------
    x : (T, H) array
        Tokens.
    node_weights, node_biases : (2**depth - 1, H), (2**depth - 1,) or (2**depth - 1, 1) arrays
        The deciding nodes in heap order: right where the score is >= 0; NaN goes left.
    w1s, b1s : (2**depth, H, leaf_width), (2**depth, leaf_width) arrays
        First layer of each leaf.
    w2s, b2s : (2**depth, leaf_width, H_out), (2**depth, H_out) arrays
        Second layer of each leaf. `b2s` may be None.
    depth : int, optional
        Levels of deciding nodes; by default what the shape of `w1s` says.
    activation : {"relu", "gelu", "silu", "tanh"}
        Between the two layers of a leaf. The authors' default is ReLU.
    num_threads : int, optional
        Threads at most; the result does not depend on it.
    output_bias : bool
        Add `b2s`. The authors' package adds it while training and leaves it out in evaluation mode; False
        reproduces its evaluation, True what its training optimised.

    Returns
    -------
    (T, H_out) float32 array

    Raises
    ------
    InputError
        If a shape, a dtype or another argument does not fit.
    """
    node_biases = np.reshape(node_biases, -1)
    named = ((x, "x", 2), (node_weights, "node_weights", 2), (node_biases, "node_biases", 1))
    x, node_weights, node_biases = (_door.float32_array(array, name, ndim) for array, name, ndim in named)
    named = ((w1s, "w1s", 3), (b1s, "b1s", 2), (w2s, "w2s", 3))
    w1s, b1s, w2s = (_door.float32_array(array, name, ndim) for array, name, ndim in named)
    leaves, _, leaf_width = w1s.shape
    if isinstance(activation, str):
        activation = activation.lower()  # the authors write "ReLU"
    depth = _door.checked_depth(max(leaves, 1).bit_length() - 1 if depth is None else depth)
    _door.check_shape(w1s, "w1s", (2**depth, x.shape[1], leaf_width), f"(2**depth, H, leaf_width) with depth {depth}")
    _door.check_shape(node_weights, "node_weights", (leaves - 1, x.shape[1]), "(2**depth - 1, H)")
    _door.check_shape(node_biases, "node_biases", (leaves - 1,), "(2**depth - 1,)")
    _door.check_shape(b1s, "b1s", (leaves, leaf_width), "(2**depth, leaf_width)")
    _door.check_shape(w2s, "w2s", (leaves, leaf_width, w2s.shape[2]), "(2**depth, leaf_width, H_out)")
    if b2s is not None:
        b2s = _door.float32_array(b2s, "b2s", 2)
        _door.check_shape(b2s, "b2s", (leaves, w2s.shape[2]), "(2**depth, H_out)")
    elif output_bias:
        raise InputError("output_bias=True needs b2s, got None; pass b2s or leave output_bias out")
    _door.check_activation(activation)

    weights = (x, node_weights, node_biases, w1s, b1s, w2s, b2s if output_bias else None, depth)
    if min(*x.shape, leaf_width, w2s.shape[2]) == 0 or _cmm is None:
        return reference.leaf_fff_forward(*weights, activation)
    num_threads = _door.num_threads_for(len(x) * leaf_width * (x.shape[1] + w2s.shape[2]), num_threads)
    y = np.empty((len(x), w2s.shape[2]), np.float32)
    _cmm.leaf_fff_forward(*weights, _cmm.ACTIVATIONS[activation], num_threads, y)
    return y


def load_leaf_fff(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `leaf_fff_forward` from a state dict of the authors' ``fastfeedforward.FFF``.

    Parameters
    ----------
    state_dict : dict of str to array
        ``depth, node_weights, node_biases, w1s, b1s, w2s, b2s``, as ``safetensors.numpy.load_file`` gives it.
        ``node_usage`` and ``leaf_usage`` are left out.

    Returns
    -------
    dict
        Call ``leaf_fff_forward(x, **arguments)``.

    Raises
    ------
    InputError
        If a tensor is missing or another one is there.
    """
    names = ("node_weights", "node_biases", "w1s", "b1s", "w2s", "b2s")
    expected = {*names, "depth"}
    found = set(state_dict) - {"node_usage", "leaf_usage"} if isinstance(state_dict, Mapping) else set()
    if found != expected:
        raise InputError(
            f"state dict of a leaf FFF: expected the tensors {sorted(expected)}, got {sorted(found)}; "
            "save one layer's own state_dict(), without a prefix"
        )
    depth = np.asarray(state_dict["depth"])
    if depth.size != 1 or depth.dtype.kind not in "iu":
        raise InputError(f"depth: expected one integer, got {depth.dtype} of shape {depth.shape}; save the layer anew")
    return {name: np.asarray(state_dict[name]) for name in names} | {"depth": int(depth.reshape(-1)[0])}


def _checked_visits(path: Any, scores: Any, shape: tuple[int, ...], num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Path and scores as the kernels want them; a node outside the tree would be read and written."""
    path = np.asarray(path)
    if path.dtype.kind not in "iu":
        raise InputError(f"path: expected an integer array, got dtype {path.dtype}; pass what fff_forward returned")
    scores = _door.float32_array(scores, "scores", 3)
    _door.check_shape(path, "path", shape, "(T, P, depth + 1)")
    _door.check_shape(scores, "scores", shape, "(T, P, depth + 1)")
    if path.size and not (path.min() >= 0 and path.max() < num_nodes):
        raise InputError(
            f"path: expected nodes from 0 to {num_nodes - 1}, got {path.min()} to {path.max()}; pass what "
            "fff_forward returned for the same layer"
        )
    return np.ascontiguousarray(path, np.int32), scores


def _checked_levels(tried: Any, shape: tuple[int, int], depth: int) -> np.ndarray:
    """Levels whose decisions are tried the other way, as the kernels want them."""
    tried = np.asarray(tried)
    if tried.dtype.kind not in "iu":
        raise InputError(f"tried: expected an integer array, got dtype {tried.dtype}; draw levels below the depth")
    _door.check_shape(tried, "tried", shape, "(T, P)")
    if tried.size and not (tried.min() >= 0 and tried.max() < depth):
        raise InputError(
            f"tried: expected levels from 0 to {depth - 1}, got {tried.min()} to {tried.max()}; "
            + ("draw levels below the depth" if depth else "trees of depth 0 decide nothing: leave it out")
        )
    return np.ascontiguousarray(tried, np.int32)


def _check_switch_cost(switch_cost: float) -> None:
    if not isinstance(switch_cost, (int, float)) or not 0 <= switch_cost < float("inf"):
        raise InputError(f"switch_cost: expected a number from 0, got {switch_cost!r}")
