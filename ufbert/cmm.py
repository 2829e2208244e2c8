"""Conditional matrix multiplication: the checked door to the compiled kernels.

Every check and every message is here; the kernels assume. Where the compiled extension is missing, the same
functions run in NumPy (`ufbert.reference.fff_walk`), slower and with the same results to rounding.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from . import reference, threads
from .errors import InputError

try:
    from . import _cmm
except ImportError:  # built with UFBERT_NO_EXTENSION=1, or for another platform
    _cmm = None

__all__ = ["active_isa", "fff_forward", "leaf_fff_forward", "load_leaf_fff", "supported_isas", "use_isa"]

_MAX_DEPTH = 24
_SERIAL_BELOW = 200_000  # multiply-adds: some 10 microseconds, what waking a second thread costs
_openmp_used = False
_serial_only = False


def supported_isas() -> list[str]:
    """Name the instruction sets that this build has and this machine runs, best last; ``["numpy"]`` without a build."""
    return _cmm.supported_isas() if _cmm else ["numpy"]


def active_isa() -> str:
    """Name the instruction set in use."""
    return _cmm.active_isa() if _cmm else "numpy"


def openmp_version() -> int | None:
    """Give the date of the OpenMP standard that the kernels were built with, such as 201511; None without OpenMP."""
    return (_cmm.OPENMP_VERSION or None) if _cmm else None


def use_isa(name: str) -> None:
    """Choose the instruction set by name, as ``UFBERT_ISA`` does at import.

    Not to be called while another thread runs a kernel.

    Raises
    ------
    InputError
        If this build or this machine does not have it.
    """
    if name not in supported_isas():
        raise InputError(
            f"instruction set (UFBERT_ISA): expected one of {', '.join(supported_isas())} on this machine, got {name!r}"
        )
    if _cmm:
        _cmm.use_isa(name)


def fff_forward(
    x: Any,
    w_in: Any,
    b_in: Any,
    w_out: Any,
    depth: int,
    num_threads: int | None = None,
    return_path: bool = False,
    activation: str = "gelu",
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
    return_path : bool
        Also return the visited nodes.
    activation : {"gelu", "relu", "silu", "tanh"}
        "gelu" is the exact one, with erf.

    Returns
    -------
    y : (T, H_out) float32 array
    path : (T, P, depth + 1) int32 array
        Only if `return_path`.

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
    depth = _checked_depth(depth)
    x, w_in, b_in, w_out = (
        _float32(a, name, ndim)
        for a, name, ndim in ((x, "x", 2), (w_in, "w_in", 3), (b_in, "b_in", 2), (w_out, "w_out", 3))
    )
    nodes = 2 ** (depth + 1) - 1
    trees = w_in.shape[0]
    _check_shape(w_in, "w_in", (trees, nodes, x.shape[1]), f"(P, 2**(depth + 1) - 1, H) with depth {depth}")
    _check_shape(b_in, "b_in", (trees, nodes), "(P, n)")
    _check_shape(w_out, "w_out", (trees, nodes, w_out.shape[2]), "(P, n, H_out)")
    _check_activation(activation)
    num_threads = threads.get_num_threads(num_threads)

    y = np.zeros((len(x), w_out.shape[2]), np.float32)
    path = np.zeros((len(x), trees, depth + 1), np.int32) if return_path else None
    if min(*x.shape, trees, w_out.shape[2]) > 0:
        if _cmm is None:
            y, path = reference.fff_walk(x, w_in, b_in, w_out, depth, return_path=True, activation=activation)
        else:
            work = len(x) * trees * (depth + 1) * (x.shape[1] + w_out.shape[2])
            num_threads = _threads_for(work, num_threads)
            _cmm.fff_forward(x, w_in, b_in, w_out, depth, _cmm.ACTIVATIONS[activation], num_threads, y, path)
    return (y, path) if return_path else y


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
    arrays = [_float32(x, "x", 2), _float32(node_weights, "node_weights", 2)]
    arrays.append(_float32(np.reshape(node_biases, -1), "node_biases", 1))
    named = (("w1s", w1s, 3), ("b1s", b1s, 2), ("w2s", w2s, 3))
    x, node_weights, node_biases, w1s, b1s, w2s = arrays + [_float32(a, name, ndim) for name, a, ndim in named]
    leaves, _, leaf_width = w1s.shape
    depth = _checked_depth(max(leaves, 1).bit_length() - 1 if depth is None else depth)
    _check_shape(w1s, "w1s", (2**depth, x.shape[1], leaf_width), f"(2**depth, H, leaf_width) with depth {depth}")
    _check_shape(node_weights, "node_weights", (leaves - 1, x.shape[1]), "(2**depth - 1, H)")
    _check_shape(node_biases, "node_biases", (leaves - 1,), "(2**depth - 1,)")
    _check_shape(b1s, "b1s", (leaves, leaf_width), "(2**depth, leaf_width)")
    _check_shape(w2s, "w2s", (leaves, leaf_width, w2s.shape[2]), "(2**depth, leaf_width, H_out)")
    if b2s is not None:
        b2s = _float32(b2s, "b2s", 2)
        _check_shape(b2s, "b2s", (leaves, w2s.shape[2]), "(2**depth, H_out)")
    elif output_bias:
        raise InputError("output_bias=True needs b2s, got None; pass b2s or leave output_bias out")
    _check_activation(activation)

    weights = (x, node_weights, node_biases, w1s, b1s, w2s, b2s if output_bias else None, depth)
    if min(*x.shape, leaf_width, w2s.shape[2]) == 0 or _cmm is None:
        return reference.leaf_fff_forward(*weights, activation)
    num_threads = _threads_for(len(x) * leaf_width * sum(x.shape), threads.get_num_threads(num_threads))
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
    found = set(state_dict) - {"node_usage", "leaf_usage"}
    if found != expected:
        raise InputError(
            f"state dict of a leaf FFF: expected the tensors {sorted(expected)}, got {sorted(found)}; "
            "save one layer's own state_dict(), without a prefix"
        )
    return {name: np.asarray(state_dict[name]) for name in names} | {"depth": int(np.asarray(state_dict["depth"]))}


def _threads_for(work: int, num_threads: int) -> int:
    """1 where `work` multiply-adds would not pay for a second thread, or where OpenMP cannot run any more."""
    global _openmp_used
    if num_threads == 1 or work < _SERIAL_BELOW or _serial_only or not _cmm.OPENMP_VERSION:
        return 1
    _openmp_used = True
    return num_threads


def _float32(array: Any, name: str, ndim: int) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected an array of float32, got dtype {array.dtype}; convert it first")
    if array.ndim != ndim:
        raise InputError(f"{name}: expected {ndim} dimensions, got shape {array.shape}; reshape it first")
    return np.ascontiguousarray(array, np.float32)


def _check_shape(array: np.ndarray, name: str, expected: tuple[int, ...], meaning: str) -> None:
    if array.shape != expected:
        raise InputError(f"{name}: expected shape {expected}, {meaning}, got {array.shape}; check the layer's weights")


def _checked_depth(depth: Any) -> int:
    if isinstance(depth, (bool, float)) or not 0 <= int(depth) <= _MAX_DEPTH:
        raise InputError(f"depth: expected an integer from 0 to {_MAX_DEPTH}, got {depth!r}")
    return int(depth)


def _check_activation(activation: str) -> None:
    if activation not in reference.ACTIVATIONS:
        raise InputError(f"activation: expected one of {', '.join(reference.ACTIVATIONS)}, got {activation!r}")


def _serial_after_fork() -> None:
    """A forked child lacks the threads of the parent's OpenMP pool and would wait for them for ever."""
    global _serial_only
    _serial_only = _openmp_used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_serial_after_fork)
if "UFBERT_ISA" in os.environ:
    use_isa(os.environ["UFBERT_ISA"])
