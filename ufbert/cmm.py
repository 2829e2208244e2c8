"""Conditional matrix multiplication: the checked door to the FFF kernels.

Every check and message is on this side; the kernels assume. Without kernels `ufbert.reference` computes in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike as Like
from numpy.typing import NDArray

from . import checks, isa, reference
from .activations import check_kernel_activation
from .int8 import FactoredRows, tree_rows
from .isa import active_isa, openmp_version, supported_isas, use_isa
from .leaf import leaf_fff_forward, load_leaf_fff
from .paths import node_visits, smallest_margin
from .threads import SERIAL_BELOW, threads_for

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "PackedFFF", "active_isa", "fff_backward", "fff_forward", "leaf_fff_forward", "load_leaf_fff",
    "node_visits", "openmp_version", "smallest_margin", "supported_isas", "use_isa",
]  # fmt: skip

WEIGHT_DTYPES = ("float32", "bfloat16", "int8")
MOST_TOKENS = 2**31 - 1  # that the backward kernels count in int32
ALIGNED_ABOVE = 1 << 20  # floats: larger outputs are written past the caches, in whole cache lines
PAGE = 4096  # rows of 768 that begin at multiples of 1 KB are written a tenth faster than at other cache lines
Floats = NDArray[np.float32]
Path = NDArray[np.int32]
Yes = Literal[True]
No = Literal[False]


class _Options(TypedDict, total=False):
    activation: str
    num_threads: int | None


class _CallOptions(TypedDict, total=False):
    num_threads: int | None
    out: Floats | None


# fmt: off
@overload
def fff_forward(x: Like, w_in: Like, b_in: Like, w_out: Like, depth: int, *, return_path: No = ...,
                return_scores: No = ..., **options: Unpack[_Options]) -> Floats: ...
@overload
def fff_forward(x: Like, w_in: Like, b_in: Like, w_out: Like, depth: int, *, return_path: Yes,
                return_scores: No = ..., **options: Unpack[_Options]) -> tuple[Floats, Path]: ...
@overload
def fff_forward(x: Like, w_in: Like, b_in: Like, w_out: Like, depth: int, *, return_path: No = ...,
                return_scores: Yes, **options: Unpack[_Options]) -> tuple[Floats, Floats]: ...
@overload
def fff_forward(x: Like, w_in: Like, b_in: Like, w_out: Like, depth: int, *, return_path: Yes,
                return_scores: Yes, **options: Unpack[_Options]) -> tuple[Floats, Path, Floats]: ...
# fmt: on
@checks.keyword_only(5, "num_threads", "return_path", "activation", "return_scores")
def fff_forward(
    x: Like,
    w_in: Like,
    b_in: Like,
    w_out: Like,
    depth: int,
    *,
    activation: str = "gelu",
    num_threads: int | None = None,
    return_path: bool = False,
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
    activation : {"gelu", "relu", "silu", "tanh"}
        "gelu" is the exact one, with erf.
    num_threads : int, optional
        Threads at most; None for `ufbert.threads.get_num_threads`. The result does not depend on it.
    return_path, return_scores : bool
        Also return the visited nodes, and their scores before the activation.

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
    depth, code = checks.depth(depth), check_kernel_activation(activation)
    w_in, b_in, w_out = _trees(w_in, b_in, w_out, depth)
    x = checks.rows(x, "x", w_in.shape[2])
    y, path, scores = _outputs(None, x, (len(w_in), depth + 1), w_out.shape[2], return_path, return_scores)
    if isa.fff_kernels is None or min(*x.shape, len(w_in), w_out.shape[2]) == 0:
        _walk(x, (w_in, b_in, w_out), depth, activation, y, path, scores)
    else:
        work = len(x) * len(w_in) * (depth + 1) * (x.shape[1] + w_out.shape[2])
        num_threads = threads_for(work, num_threads)
        isa.fff_kernels.fff_forward(x, w_in, b_in, w_out, depth, code, num_threads, y, path, scores)
    return _asked_for(y, path, scores)


@checks.keyword_only(8, "activation", "num_threads", "tried", "switch_cost")
def fff_backward(
    dy: Like,
    x: Like,
    w_in: Like,
    b_in: Like,
    w_out: Like,
    depth: int,
    path: Like,
    scores: Like,
    *,
    activation: str = "gelu",
    num_threads: int | None = None,
    tried: Like | None = None,
    switch_cost: float = 0.0,
) -> tuple[Floats, Floats, Floats, Floats]:
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
    depth, code = checks.depth(depth), check_kernel_activation(activation)
    w_in, b_in, w_out = _trees(w_in, b_in, w_out, depth)
    x = checks.rows(x, "x", w_in.shape[2])
    checks.integer(len(x), "rows of x", 0, MOST_TOKENS, advice="split the batch")
    dy = checks.shaped(dy, "dy", (len(x), w_out.shape[2]), "(T, H_out)")
    visits, meaning = (len(x), len(w_in), depth + 1), "(T, P, depth + 1)"
    advice = "pass what fff_forward returned for the same layer"
    path = checks.integers(path, "path", visits, meaning, b_in.shape[1] - 1, kind="nodes", advice=advice)
    scores = checks.shaped(scores, "scores", visits, meaning)
    if tried is not None:
        advice = "draw levels below the depth" if depth else "trees of depth 0 decide nothing: leave it out"
        tried = checks.integers(tried, "tried", visits[:2], "(T, P)", depth - 1, kind="levels", advice=advice)
        switch_cost = checks.number(switch_cost, "switch_cost")
    arguments = (dy, x, w_in, b_in, w_out, depth, path, scores)
    if isa.fff_kernels is None or min(*x.shape, *w_in.shape, *dy.shape) == 0:
        return reference.fff_backward(*arguments, activation=activation, tried=tried, switch_cost=switch_cost)
    num_threads = threads_for(3 * scores.size * (x.shape[1] + dy.shape[1]), num_threads)
    dx = _on_pages(np.empty, x.shape)
    # np.zeros leaves the clearing to the system, page by page as they are written.
    dw_in, db_in, dw_out = (_on_pages(np.zeros, array.shape) for array in (w_in, b_in, w_out))
    decisions: tuple[NDArray[Any], ...] = ()
    if tried is not None:
        costs = np.sqrt(np.einsum("to,to->t", dy, dy) / dy.shape[1]) * np.float32(switch_cost)
        decisions = (tried, np.einsum("pno,pno->pn", w_out, w_out), costs)
    isa.fff_kernels.fff_backward(*arguments, code, num_threads, dx, dw_in, db_in, dw_out, *decisions)
    return dx, dw_in, db_in, dw_out


class PackedFFF:
    """Fast feedforward layer of UltraFastBERT with packed weights: what a model keeps and calls.

    Parameters
    ----------
    w_in, b_in, w_out, depth, activation
        As in `fff_forward`.
    weight_dtype : {"float32", "bfloat16", "int8"}
        Of packed rows. "bfloat16": rounded to nearest even. "int8": each row to multiples of its largest size / 127;
        int8 arrays and `ufbert.int8.FactoredRows` are kept as they are. Biases, inputs, sums and outputs: float32.

    Attributes
    ----------
    num_trees, num_nodes, depth, width_in, width_out : int
    weight_dtype, activation : str
    nbytes : int
        Memory of the packed weights. The arrays that were passed are not kept.
    row_work : int
        Multiply-adds for one row of x.
    packed : object or None
        Weights in the kernels' layout; None where NumPy computes: without kernels, or with an empty axis.

    Raises
    ------
    InputError
        If a shape, a dtype or another argument does not fit.
    MemoryError
        If there is no memory for the packed weights.

    Notes
    -----
    float32 results are the same bits as `ufbert.cmm.fff_forward`'s on the same instruction set. Rows begin at
    cache lines, and on Linux the weights are on huge pages where the system grants them. The usual call is checked in
    Cython, for the checks here take microseconds; what it does not take comes here for its message.
    """

    @checks.keyword_only(5, "weight_dtype", "activation")  # self is the first
    def __init__(
        self,
        w_in: Like | FactoredRows,
        b_in: Like,
        w_out: Like | FactoredRows,
        depth: int,
        *,
        activation: str = "gelu",
        weight_dtype: str = "float32",
    ) -> None:
        self.depth, code = checks.depth(depth), check_kernel_activation(activation)
        self.weight_dtype, self.activation = checks.choice(weight_dtype, "weight_dtype", WEIGHT_DTYPES), activation
        rows_in, rows_out = FactoredRows.of(w_in, "w_in", weight_dtype), FactoredRows.of(w_out, "w_out", weight_dtype)
        w_in, b_in, w_out = _trees(rows_in.values, b_in, rows_out.values, self.depth, tree_rows)
        factors = (rows_in.factors("w_in", w_in.shape)[0], *rows_out.factors("w_out", w_out.shape))
        (self.num_trees, self.num_nodes, self.width_in), self.width_out = w_in.shape, w_out.shape[2]
        self.row_work = self.num_trees * (self.depth + 1) * (self.width_in + self.width_out)
        self.packed = self._plain = None
        if isa.fff_kernels is None or min(self.num_trees, self.width_in, self.width_out) == 0:
            as_kept = reference.round_to_bfloat16 if weight_dtype == "bfloat16" else np.copy
            self._plain = as_kept(rows_in.rounded(weight_dtype)), b_in.copy(), as_kept(rows_out.rounded(weight_dtype))
            self.nbytes = sum(array.nbytes for array in self._plain)
        else:
            self.packed = isa.fff_kernels.PackedLayer(
                w_in, b_in, w_out, self.depth, code, weight_dtype, *factors, num_threads=threads_for(w_in.size, None)
            )
            self.nbytes = self.packed.nbytes

    # fmt: off
    @overload
    def __call__(self, x: Like, *, return_path: No = ..., return_scores: No = ...,
                 **options: Unpack[_CallOptions]) -> Floats: ...
    @overload
    def __call__(self, x: Like, *, return_path: Yes, return_scores: No = ...,
                 **options: Unpack[_CallOptions]) -> tuple[Floats, Path]: ...
    @overload
    def __call__(self, x: Like, *, return_path: No = ..., return_scores: Yes,
                 **options: Unpack[_CallOptions]) -> tuple[Floats, Floats]: ...
    @overload
    def __call__(self, x: Like, *, return_path: Yes, return_scores: Yes,
                 **options: Unpack[_CallOptions]) -> tuple[Floats, Path, Floats]: ...
    # fmt: on
    def __call__(
        self,
        x: Like,
        *old: Any,
        num_threads: int | None = None,
        return_path: bool = False,
        return_scores: bool = False,
        out: Floats | None = None,
    ) -> Any:
        """Compute the layer.

        Parameters
        ----------
        x : (T, H) array
            Tokens.
        num_threads, return_path, return_scores
            As in `fff_forward`.
        out : (T, H_out) float32 array, optional
            Where to write y: C-contiguous, and no part of `x`. For large batches this saves the system the
            clearing of new pages: at 16,384 tokens of 768 a third of the layer's time. Best is what a call without
            it returned: it begins at a page, and only memory that begins at a cache line is written past the caches.

        Returns
        -------
        y, path, scores
            As from `fff_forward`; y is `out` if that was given.
        """
        if old:  # not by `keyword_only`, which costs a twelfth of the kernel at one token
            names = ("num_threads", "return_path", "out", "return_scores")
            by_name = dict(zip(names, (num_threads, return_path, out, return_scores), strict=True))
            return self(x, **(by_name | checks.by_name("PackedFFF", names, old)))
        packed, usual = self.packed, not (return_path or return_scores)
        if packed is not None and usual and (num_threads is None or (type(num_threads) is int and num_threads > 0)):
            y = packed.forward_checked(x, out, num_threads, threads_for, SERIAL_BELOW)
            if y is not None:
                return y
        x = checks.rows(x, "x", self.width_in)
        num_threads = threads_for(len(x) * self.row_work, num_threads)
        shape = (self.num_trees, self.depth + 1)
        y, path, scores = _outputs(out, x, shape, self.width_out, return_path, return_scores)
        if self._plain is not None:
            _walk(x, self._plain, self.depth, self.activation, y, path, scores)
        elif packed is not None and len(x):
            packed.forward(x, num_threads, y, path, scores)
        return _asked_for(y, path, scores)

    def __repr__(self) -> str:
        shape = f"{self.num_trees}x{self.depth}, {self.width_in} -> {self.width_out}"
        return f"PackedFFF({shape}, {self.weight_dtype}, {self.activation})"


def _trees(
    w_in: Like, b_in: Like, w_out: Like, depth: int, array: Callable[..., NDArray[Any]] = checks.array
) -> tuple[NDArray[Any], Floats, NDArray[Any]]:
    """The weights of a layer, with their shapes checked against each other."""
    w_in, w_out = array(w_in, "w_in", 3), array(w_out, "w_out", 3)
    shape = len(w_in), 2 ** (depth + 1) - 1
    checks.shape(w_in, "w_in", (*shape, w_in.shape[2]), f"(P, 2**(depth + 1) - 1, H) with depth {depth}")
    checks.shape(w_out, "w_out", (*shape, w_out.shape[2]), "(P, n, H_out)")
    return w_in, checks.shaped(b_in, "b_in", shape, "(P, n)"), w_out


def _outputs(
    out: Floats | None, x: Floats, visits: tuple[int, int], width: int, return_path: bool, return_scores: bool
) -> tuple[Floats, Path | None, Floats | None]:
    """Memory for y, `out` if it is fit for that, and for the path and the scores where they are asked for."""
    if out is None:
        small = len(x) * width <= ALIGNED_ABOVE
        y = np.empty((len(x), width), np.float32) if small else _on_pages(np.empty, (len(x), width))
    else:
        y = checks.output(out, (len(x), width), x=x)
    path = np.empty((len(x), *visits), np.int32) if return_path else None
    scores = np.empty((len(x), *visits), np.float32) if return_scores else None
    return y, path, scores


def _on_pages(make: Callable[..., NDArray[Any]], shape: tuple[int, ...]) -> Floats:
    """New float32 memory from `np.empty` or `np.zeros` whose first element begins a page."""
    size = math.prod(shape)
    memory = make(size + PAGE // 4, np.float32)
    start = -memory.ctypes.data % PAGE // 4
    return memory[start : start + size].reshape(shape)


def _walk(
    x: Floats, weights: tuple[Floats, Floats, Floats], depth: int, activation: str, *outputs: NDArray[Any] | None
) -> None:
    """Fill y, path and scores, which may be None, in NumPy."""
    found = reference.fff_walk(x, *weights, depth, activation=activation, return_path=True, return_scores=True)
    for array, result in zip(outputs, found, strict=True):
        if array is not None:
            array[...] = result


def _asked_for(y: Floats, path: Path | None, scores: Floats | None) -> Any:  # noqa: ANN401 (overloads say which)
    extras = [array for array in (path, scores) if array is not None]
    return (y, *extras) if extras else y
