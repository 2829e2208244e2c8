"""One validator of each kind: it returns the value as the code behind it takes it, or raises with what is wrong.

``error`` is the exception: `InputError` for what a caller passed, `CheckpointError` for what a file says. ``advice``
ends the message: what to do.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from .errors import InputError, UfbertError, shown

__all__ = [
    "MAX_DEPTH",
    "array",
    "by_name",
    "choice",
    "depth",
    "integer",
    "integers",
    "keyword_only",
    "number",
    "output",
    "path",
    "refusal",
    "rows",
    "shape",
    "shaped",
]

Function = TypeVar("Function", bound=Callable[..., Any])
MAX_DEPTH = 24
"""Levels of a tree below its root, at most."""


def refusal(
    name: str, expected: str, value: object, advice: str = "", error: type[UfbertError] = InputError
) -> UfbertError:
    """Build the exception: ``name: expected ..., got ...; advice``, with "found" for what a file says."""
    verb = "got" if issubclass(error, InputError) else "found"
    return error(f"{name}: expected {expected}, {verb} {shown(value)}" + (f"; {advice}" if advice else ""))


def integer(
    value: object,
    name: str,
    low: int,
    high: int | None = None,
    *,
    advice: str = "",
    error: type[UfbertError] = InputError,
) -> int:
    """Return an integer from `low` to `high`, of Python's type. True and 2.0 are none."""
    try:
        found = None if isinstance(value, (bool, np.bool_)) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = None
    if found is None or found < low or (high is not None and found > high):
        expected = f"an integer from {low}" if high is None else f"an integer from {low} to {high}"
        raise refusal(name, "a positive integer" if (low, high) == (1, None) else expected, value, advice, error)
    return found


def depth(value: object) -> int:
    """Return the levels of a tree below its root."""
    return integer(value, "depth", 0, MAX_DEPTH, advice="count levels below the root")


def number(
    value: object,
    name: str,
    low: float = 0.0,
    high: float = math.inf,
    *,
    advice: str = "",
    error: type[UfbertError] = InputError,
) -> float:
    """Return a finite number from `low` to `high`. True is none."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or math.isinf(value):  # type: ignore[operator, arg-type]
        expected = f"a number from {low:g}" + (f" to {high:g}" if math.isfinite(high) else "")
        raise refusal(name, expected, value, advice, error)
    return float(value)  # type: ignore[arg-type]


def choice(
    value: object,
    name: str,
    choices: Collection[str],
    *,
    advice: str = "choose one of these",
    error: type[UfbertError] = InputError,
) -> str:
    """Return a string that is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise refusal(name, "one of " + ", ".join(choices), value, advice, error)
    return value


def path(value: object, name: str, *, error: type[UfbertError] = InputError) -> Path:
    """Return a path that the system can look up, whether or not something is there."""
    try:
        found = Path(value)  # type: ignore[arg-type]
        found.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return found
    except (TypeError, ValueError, OSError):  # not a path at all, or one with a NUL, or too long
        raise refusal(name, "a path", value, error=error) from None
    return found


def array(value: object, name: str, ndim: int) -> NDArray[np.float32]:
    """Return C-contiguous float32 of `ndim` dimensions, without a copy where it is that already."""
    found = _converted(value, name, "float32")
    if found.dtype.kind not in "fiub":
        raise InputError(f"{name}: expected an array of float32, got dtype {found.dtype}; convert it first")
    if found.ndim != ndim:
        raise InputError(f"{name}: expected {ndim} dimensions, got shape {found.shape}; reshape it first")
    return np.ascontiguousarray(found, np.float32)


def rows(value: object, name: str, width: int) -> NDArray[np.float32]:
    """Return C-contiguous float32 of the shape (rows, width)."""
    if type(value) is np.ndarray and value.dtype == np.float32 and value.ndim == 2 and value.flags.c_contiguous:
        found = value
    else:
        found = array(value, name, 2)
    if found.shape[1] != width:
        raise InputError(f"{name}: expected shape (T, {width}), got {found.shape}; check the layer")
    return found


def integers(
    value: object, name: str, expected: tuple[int, ...], meaning: str, high: int, *, kind: str = "integers", advice: str
) -> NDArray[np.int32]:
    """Return C-contiguous int32 of the shape `expected`, all of it from 0 to `high`; `kind` says what they are."""
    found = _converted(value, name, "integers")
    if found.dtype.kind not in "iu":
        raise InputError(f"{name}: expected an integer array, got dtype {found.dtype}; {advice}")
    shape(found, name, expected, meaning)
    if found.size and not (found.min() >= 0 and found.max() <= high):
        raise InputError(f"{name}: expected {kind} from 0 to {high}, got {found.min()} to {found.max()}; {advice}")
    return np.ascontiguousarray(found, np.int32)


def output(out: object, expected: tuple[int, ...], **inputs: NDArray[Any] | None) -> NDArray[np.float32]:
    """Return `out` if a float32 result of the shape `expected` can be written to it while the inputs are read."""
    if not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != expected:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        advice = "allocate it so or leave it out"
        raise InputError(f"out: expected a float32 array of shape {expected}, got {found}; {advice}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise InputError("out: expected a C-contiguous, writeable array, got another; pass np.empty(shape, 'f4')")
    for name, array in inputs.items():
        if array is not None and np.may_share_memory(out, array):
            raise InputError(f"out: expected memory of its own, got an array that overlaps {name}; pass another array")
    return out


def shaped(value: object, name: str, expected: tuple[int, ...], meaning: str) -> NDArray[np.float32]:
    """Return C-contiguous float32 of the shape `expected`; `meaning` says the shape in symbols."""
    found = array(value, name, len(expected))
    shape(found, name, expected, meaning)
    return found


def shape(found: NDArray[Any], name: str, expected: tuple[int, ...], meaning: str) -> None:
    """Refuse an array of another shape; `meaning` says in symbols what is expected."""
    if found.shape != expected:
        raise InputError(f"{name}: expected shape {expected}, {meaning}, got {found.shape}; check the layer's weights")


def _converted(value: object, name: str, kind: str) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:  # such as rows of different lengths
        raise InputError(f"{name}: expected an array of {kind}, could not convert it: {error}") from None


def by_name(function: str, names: tuple[str, ...], values: tuple[object, ...]) -> dict[str, Any]:
    """Name options that came by position, as they might in version 0.1, and warn.

    Parameters
    ----------
    function : str
        What was called.
    names : tuple of str
        Its options in the order of version 0.1.
    values : tuple
    """
    if len(values) > len(names):
        raise TypeError(f"{function}: expected at most {len(names)} arguments after the tensors, got {len(values)}")
    given = ", ".join(names[: len(values)])
    warnings.warn(
        f"{function}: pass {given} by name, not by position; that goes with 0.3", DeprecationWarning, stacklevel=3
    )
    return dict(zip(names, values, strict=False))


def keyword_only(count: int, *names: str) -> Callable[[Function], Function]:
    """Let a function with keyword-only options take them by position too, with a warning.

    Parameters
    ----------
    count : int
        Arguments before the options.
    names : str
        The options in the order of version 0.1.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> object:
            if len(args) > count:
                return function(*args[:count], **by_name(function.__qualname__, names, args[count:]), **kwargs)
            return function(*args, **kwargs)

        return cast(Function, call)

    return decorate
