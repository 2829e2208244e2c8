"""What the checked doors to the kernels share: the instruction set, the checks, the number of threads."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from . import reference, threads
from .errors import InputError, shown

try:
    from . import _cmm
except ImportError:  # built with UFBERT_NO_EXTENSION=1, or for another platform
    _cmm = None

__all__ = ["active_isa", "openmp_version", "supported_isas", "use_isa"]

MAX_DEPTH = 24
SERIAL_BELOW = 200_000  # multiply-adds: some 10 microseconds, what waking a second thread costs
ALIGNED_ABOVE = 1 << 20  # floats: larger outputs are written past the caches, in whole cache lines
CACHE_LINE = 64
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
            f"instruction set (UFBERT_ISA): expected one of {', '.join(supported_isas())} on this machine, "
            f"got {name!r}; choose one of these or unset it"
        )
    if _cmm:
        _cmm.use_isa(name)


def num_threads_for(work: int, num_threads: int | None) -> int:
    """1 where `work` multiply-adds would not pay for a second thread, or where OpenMP cannot run any more."""
    global _openmp_used
    if num_threads is not None:
        num_threads = threads.get_num_threads(num_threads)
    if num_threads == 1 or work < SERIAL_BELOW or _serial_only or not _cmm.OPENMP_VERSION:
        return 1
    if num_threads is None:
        num_threads = threads.get_num_threads()
    if num_threads > 1:
        _openmp_used = True
    return num_threads


def float32_array(array: Any, name: str, ndim: int) -> np.ndarray:
    """`array` as C-contiguous float32, without a copy where it is one."""
    try:
        array = np.asarray(array)
    except ValueError as error:  # such as rows of different lengths
        raise InputError(f"{name}: expected an array of float32, got none: {error}") from None
    if array.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected an array of float32, got dtype {array.dtype}; convert it first")
    if array.ndim != ndim:
        raise InputError(f"{name}: expected {ndim} dimensions, got shape {array.shape}; reshape it first")
    return np.ascontiguousarray(array, np.float32)


def check_shape(array: np.ndarray, name: str, expected: tuple[int, ...], meaning: str) -> None:
    if array.shape != expected:
        raise InputError(f"{name}: expected shape {expected}, {meaning}, got {array.shape}; check the layer's weights")


def checked_depth(depth: Any) -> int:
    try:
        number = -1 if isinstance(depth, (bool, np.bool_)) else operator.index(depth)
    except TypeError:
        number = -1
    if not 0 <= number <= MAX_DEPTH:
        found = shown(depth)
        raise InputError(f"depth: expected an integer from 0 to {MAX_DEPTH}, got {found}; count levels below the root")
    return number


def check_activation(activation: Any) -> None:
    if not isinstance(activation, str) or activation not in reference.ACTIVATIONS:
        known = ", ".join(reference.ACTIVATIONS)
        raise InputError(f"activation: expected one of {known}, got {shown(activation)}; choose one of these")


def layer_arrays(w_in: Any, b_in: Any, w_out: Any, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weights of a fast feedforward layer as float32, with their shapes checked against each other."""
    named = ((w_in, "w_in", 3), (b_in, "b_in", 2), (w_out, "w_out", 3))
    w_in, b_in, w_out = (float32_array(array, name, ndim) for array, name, ndim in named)
    trees, nodes = w_in.shape[0], 2 ** (depth + 1) - 1
    check_shape(w_in, "w_in", (trees, nodes, w_in.shape[2]), f"(P, 2**(depth + 1) - 1, H) with depth {depth}")
    check_shape(b_in, "b_in", (trees, nodes), "(P, n)")
    check_shape(w_out, "w_out", (trees, nodes, w_out.shape[2]), "(P, n, H_out)")
    return w_in, b_in, w_out


def tokens_array(x: Any, width: int) -> np.ndarray:
    """Tokens as float32 (T, width)."""
    if not (type(x) is np.ndarray and x.dtype == np.float32 and x.ndim == 2 and x.flags.c_contiguous):
        x = float32_array(x, "x", 2)
    if x.shape[1] != width:
        raise InputError(f"x: expected shape (T, {width}), the width of w_in, got {x.shape}; check the layer")
    return x


def output_array(out: Any, x: np.ndarray, width: int) -> np.ndarray:
    """`out` if it can be written to, or new memory."""
    shape = (len(x), width)
    if out is None:
        return _new_output(shape)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputError(f"out: expected a float32 array of shape {shape}, got {found}; allocate it so or leave it out")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out: expected a C-contiguous, writeable array, got another; pass np.empty(shape, 'f4')")
    if np.may_share_memory(out, x):
        raise InputError("out: expected memory of its own, got an array that overlaps x; pass another array")
    return out


def _new_output(shape: tuple[int, int]) -> np.ndarray:
    return np.empty(shape, np.float32) if shape[0] * shape[1] <= ALIGNED_ABOVE else on_cache_lines(np.empty, shape)


def on_cache_lines(make: Callable[..., np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """New float32 memory from `np.empty` or `np.zeros` whose first element begins a cache line."""
    size = math.prod(shape)
    memory = make(size + CACHE_LINE // 4, np.float32)
    start = -memory.ctypes.data % CACHE_LINE // 4
    return memory[start : start + size].reshape(shape)


def _serial_after_fork() -> None:
    """A forked child lacks the threads of the parent's OpenMP pool and would wait for them for ever."""
    global _serial_only
    _serial_only = _openmp_used or _serial_only


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_serial_after_fork)
if name := os.environ.get("UFBERT_ISA"):
    use_isa(name)
