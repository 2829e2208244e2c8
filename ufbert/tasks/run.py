"""What every task does: cut texts into windows and batches, run the encoder, say what was truncated."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ..batch import Batch, split_by_budget
from ..encoder import TOKEN_BUDGET, Model
from ..errors import InputError, shown

__all__ = [
    "check_batch_size",
    "check_choice",
    "check_count",
    "check_iterable",
    "check_overflow",
    "check_texts",
    "hidden_states",
    "windows",
]

Item = TypeVar("Item")
ON_OVERFLOW = ("truncate", "warn", "error")
MAX_BATCH_SIZE = 1_000_000


def windows(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut an iterable into lists of `size` items, holding one at a time."""
    iterator = iter(items)
    while window := list(islice(iterator, size)):
        yield window


def hidden_states(
    model: Model, encodings: Sequence[Any], batch_size: int
) -> Iterator[tuple[list[int], Batch, np.ndarray]]:
    """Run the encoder over encodings, longest first, so that texts of one length are neighbours.

    Yields
    ------
    indices : list of int
        Which of the encodings these are, in the batch's order.
    batch : Batch
    hidden : (T, H) float32 array
    """
    lengths = [len(encoding.ids) for encoding in encodings]
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start, stop in split_by_budget([lengths[index] for index in order], TOKEN_BUDGET, batch_size):
        indices = order[start:stop]
        batch = Batch.from_sequences(
            [encodings[index].ids for index in indices], [encodings[index].type_ids for index in indices]
        )
        model.check(batch, lengths[indices[0]])
        yield indices, batch, model.encoder(batch)


def check_overflow(truncated: Sequence[int], max_length: int, on_overflow: str, first: int = 0) -> None:
    """Do what `on_overflow` says about truncated texts.

    Parameters
    ----------
    truncated : sequence of int
        Tokens cut off each text.
    max_length : int
        Tokens a text may have.
    on_overflow : {"truncate", "warn", "error"}
    first : int
        Number of the first text, for the message.

    Raises
    ------
    InputError
        With "error", if anything was cut off.
    """
    check_choice(on_overflow, "on_overflow", ON_OVERFLOW)
    cut = [index for index, count in enumerate(truncated) if count]
    if not cut or on_overflow == "truncate":
        return
    message = (
        f"{len(cut)} text(s) longer than {max_length} tokens, the first is number {first + cut[0]} "
        f"with {truncated[cut[0]]} tokens too many; shorten or split them"
    )
    if on_overflow == "error":
        raise InputError(message + ', or allow it with on_overflow="truncate"')
    warnings.warn(message + "; the rest is cut off", stacklevel=4)


def check_choice(value: Any, name: str, choices: Sequence[str]) -> None:
    """Raise InputError unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {shown(value)}")


def check_count(value: Any, name: str, minimum: int = 1) -> int:
    """Return `value` if it is an integer from `minimum`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < minimum:
        expected = "a positive integer" if minimum == 1 else f"an integer from {minimum}"
        raise InputError(f"{name}: expected {expected}, got {shown(value)}")
    return int(value)


def check_batch_size(value: Any) -> int:
    """Return `value` if it is a positive integer that a batch may have."""
    value = check_count(value, "batch_size")
    if value > MAX_BATCH_SIZE:
        raise InputError(f"batch_size: expected a positive integer up to {MAX_BATCH_SIZE}, got {shown(value)}")
    return value


def check_iterable(texts: Any, name: str) -> Iterator[Any]:
    """Return an iterator over texts; one text alone is none, for its characters would count as texts."""
    if not isinstance(texts, (str, bytes, bytearray, Mapping)):
        try:
            return iter(texts)
        except TypeError:
            pass
    raise InputError(
        f"{name}: expected str in a list or another iterable, got {type(texts).__name__}: {shown(texts)}; "
        "put one text alone into a list"
    )


def check_texts(texts: Any, name: str) -> list[str]:
    """Return a list of texts, of one for a str."""
    found = [texts] if isinstance(texts, str) else list(check_iterable(texts, name))
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise InputError(f"{name}: expected str, got {type(text).__name__} as number {index}: {shown(text)}")
    return found
