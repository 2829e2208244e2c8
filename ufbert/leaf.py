"""The fast feedforward layer of arXiv 2308.14711, which no model of this package contains: the checked door to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, isa, reference, threads
from .activations import check_kernel_activation
from .errors import InputError

__all__ = ["leaf_fff_forward", "load_leaf_fff"]


@checks.keyword_only(7, "depth", "activation", "num_threads", "output_bias")
def leaf_fff_forward(
    x: ArrayLike,
    node_weights: ArrayLike,
    node_biases: ArrayLike,
    w1s: ArrayLike,
    b1s: ArrayLike,
    w2s: ArrayLike,
    b2s: ArrayLike | None = None,
    *,
    depth: int | None = None,
    activation: str = "relu",
    num_threads: int | None = None,
    output_bias: bool = False,
) -> NDArray[np.float32]:
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
    x, w1s, w2s = checks.array(x, "x", 2), checks.array(w1s, "w1s", 3), checks.array(w2s, "w2s", 3)
    width, leaf_width, width_out = x.shape[1], w1s.shape[2], w2s.shape[2]
    depth = checks.depth(max(len(w1s), 1).bit_length() - 1 if depth is None else depth)
    leaves, name = 2**depth, activation.lower() if isinstance(activation, str) else activation  # they write "ReLU"
    code = check_kernel_activation(name)
    checks.shape(w1s, "w1s", (leaves, width, leaf_width), f"(2**depth, H, leaf_width) with depth {depth}")
    checks.shape(w2s, "w2s", (leaves, leaf_width, width_out), "(2**depth, leaf_width, H_out)")
    weights = (
        checks.shaped(node_weights, "node_weights", (leaves - 1, width), "(2**depth - 1, H)"),
        checks.shaped(np.reshape(node_biases, -1), "node_biases", (leaves - 1,), "(2**depth - 1,)"),
        w1s,
        checks.shaped(b1s, "b1s", (leaves, leaf_width), "(2**depth, leaf_width)"),
        w2s,
        None if b2s is None else checks.shaped(b2s, "b2s", (leaves, width_out), "(2**depth, H_out)"),
    )
    if not output_bias:
        weights = (*weights[:5], None)
    elif b2s is None:
        raise InputError("output_bias=True needs b2s, got None; pass b2s or leave output_bias out")
    if min(*x.shape, leaf_width, width_out) == 0 or isa.fff_kernels is None:
        return reference.leaf_fff_forward(x, *weights, depth, activation=name)
    num_threads = threads.threads_for(len(x) * leaf_width * (width + width_out), num_threads)
    y = np.empty((len(x), width_out), np.float32)
    isa.fff_kernels.leaf_fff_forward(x, *weights, depth, code, num_threads, y)
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
