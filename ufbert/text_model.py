"""Texts through a model: windows, batches, hidden states. All tasks run here.

Texts are read window by window: at most as many as the caller says, and no more than `WINDOW_CHARACTERS` but for the
last one. A window is tokenised, sorted by length and cut into batches of at most `ufbert.encoder.TOKEN_BUDGET` tokens.
So the memory of a call is that of one window and one batch, whatever the number of texts.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import checks
from .batch import Batch
from .encoder import TOKEN_BUDGET, Model
from .errors import InputError, shown
from .tokenizer import Text, Tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = [
    "MAX_BATCH_SIZE", "ON_OVERFLOW", "WINDOW", "Run", "TextModel", "TruncationWarning", "Window", "callers_level",
    "check_batch_size", "check_texts", "checked_texts", "each_text", "windows",
]  # fmt: skip

WINDOW = 1_024
"""Texts that are tokenised and sorted by length together, where nobody waits for the first result."""
WINDOW_CHARACTERS = 1 << 19
MAX_BATCH_SIZE = 1_000_000
ON_OVERFLOW = ("truncate", "warn", "error")
Item = TypeVar("Item")


class TruncationWarning(UserWarning):
    """Texts were cut, `count` of them."""

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


class Window(NamedTuple):
    """Texts that were read and tokenised together.

    Attributes
    ----------
    first : int
        Number of the first text in the input.
    texts : list of str or of (str, str)
    encodings : list of tokenizers.Encoding
    truncated : list of int
        Tokens that were cut off each text.
    """

    first: int
    texts: list[Text]
    encodings: list[Encoding]
    truncated: list[int]


class Run(NamedTuple):
    """One forward pass.

    Attributes
    ----------
    indices : list of int
        Which of the encodings these are, in the batch's order.
    batch : Batch
    hidden : (T, H) float32 array
    """

    indices: list[int]
    batch: Batch
    hidden: NDArray[np.float32]

    def split(self, values: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Give for each text its number among the encodings, and its rows of `values` (T, ...)."""
        ends = self.batch.cu_seqlens.tolist()
        for index, start, stop in zip(self.indices, ends, ends[1:], strict=False):
            yield index, values[start:stop]


@dataclass(frozen=True, eq=False)
class TextModel:
    """A model, its tokenizer, and how texts come to it. Threads may share it.

    Attributes
    ----------
    model : Model
    tokenizer : Tokenizer
    max_length : int
        Tokens of a text at most, special tokens included.
    prompt : str
        Put before each text.
    """

    model: Model
    tokenizer: Tokenizer
    max_length: int
    prompt: str = ""

    def with_max_length(self, max_length: int) -> TextModel:
        """Return the same with another limit.

        Raises
        ------
        InputError
            If the model cannot take so many tokens, or no token would fit.
        """
        return replace(self, max_length=self.tokenizer.checked_length(max_length))

    def tokenize(self, texts: Sequence[Text], offsets: bool = False) -> tuple[list[Encoding], list[int]]:
        """Tokenise texts or pairs: encodings, and how many tokens were cut off each."""
        if self.prompt:
            texts = [self.prompt + text if isinstance(text, str) else text for text in texts]
        return self.tokenizer.encode(texts, self.max_length, offsets)

    def batch(self, encodings: Sequence[Encoding]) -> Batch:
        """Join encodings to one batch, and check that the model can take it.

        Raises
        ------
        InputError
            If an id or a length does not fit the model.
        """
        ids, types = [e.ids for e in encodings], [e.type_ids for e in encodings]
        batch = Batch.from_sequences(ids, types, self.model.config.first_position)
        self.model.check(batch, batch.max_length)
        return batch

    def run(self, encodings: Sequence[Encoding], batch_size: int | None = None) -> Iterator[Run]:
        """Run the encoder over encodings, longest first, so that texts of one length are neighbours.

        Parameters
        ----------
        encodings : sequence of tokenizers.Encoding
        batch_size : int, optional
            Texts of a forward pass at most; None for as many as the token budget allows.

        Yields
        ------
        Run
        """
        for indices, batch in self.batches(encodings, batch_size):
            yield Run(indices, batch, self.model.encoder(batch))

    def batches(
        self, encodings: Sequence[Encoding], batch_size: int | None = None
    ) -> Iterator[tuple[list[int], Batch]]:
        """Cut encodings into the batches of `run`, each with the numbers of its encodings, before they run."""
        order = sorted(range(len(encodings)), key=lambda index: -len(encodings[index]))
        whole = self.batch([encodings[index] for index in order])
        for start, batch in whole.parts(TOKEN_BUDGET, batch_size):
            yield order[start : start + len(batch)], batch

    def windows(
        self, texts: Iterable[object], name: str, size: int = WINDOW, on_overflow: str = "truncate", *,
        offsets: bool = False, pairs: bool = False,
    ) -> Iterator[Window]:  # fmt: skip
        """Read and tokenise texts window by window.

        Parameters
        ----------
        texts : iterable of str, or with `pairs` of (str, str) too
        name : str
            The caller's name of it, for messages.
        size : int
            Texts of a window at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with texts that are longer than `max_length`.
        offsets : bool
            Also compute where in the text each token stands.
        pairs : bool

        Yields
        ------
        Window

        Raises
        ------
        InputError
            If a text is of another type, or with "error" too long.
        """
        first = 0
        for found in windows(texts, size):
            window = checked_texts(found, name, first, pairs)
            encodings, truncated = self.tokenize(window, offsets)
            self.check_overflow(truncated, on_overflow, first)
            yield Window(first, window, encodings, truncated)
            first += len(window)

    def check_overflow(self, truncated: list[int], on_overflow: str, first: int) -> None:
        """Do what `on_overflow` says about texts that were cut; `first` is the number of the first."""
        cut = [index for index, count in enumerate(truncated) if count]
        if not cut or on_overflow == "truncate":
            return
        message = (
            f"{len(cut)} text(s) longer than {self.max_length} tokens, the first is number {first + cut[0]} "
            f"with {truncated[cut[0]]} tokens too many; shorten or split them"
        )
        if on_overflow == "error":
            raise InputError(message + ', or allow it with on_overflow="truncate"')
        warnings.warn(TruncationWarning(message + "; the rest is cut off", len(cut)), stacklevel=callers_level())


def windows(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut an iterable into lists of at most `size` items and about `WINDOW_CHARACTERS`, holding one at a time."""
    window: list[Item] = []
    room = WINDOW_CHARACTERS
    for item in items:
        window.append(item)
        room -= len(item) if isinstance(item, str) else sum(len(text) for text in _strings(item))
        if len(window) >= size or room <= 0:
            yield window
            window, room = [], WINDOW_CHARACTERS
    if window:
        yield window


def each_text(texts: object, name: str) -> Iterator[object]:
    """Return an iterator over texts; one text alone is none, for its characters would count as texts.

    Raises
    ------
    InputError
        If `texts` is not iterable, or iterates over something else: a str, a mapping, a data frame.
    """
    if hasattr(texts, "columns"):
        raise InputError(
            f"{name}: expected texts, got {type(texts).__name__}, a table; give one of its columns, such as "
            f'{name}["text"]'
        )
    if not isinstance(texts, (str, bytes, bytearray, Mapping)):
        try:
            return iter(texts)  # type: ignore[call-overload, no-any-return]
        except TypeError:  # such as an array without dimensions
            pass
    raise InputError(
        f"{name}: expected str in a list or another iterable, got {type(texts).__name__}: {shown(texts)}; "
        "put one text alone into a list"
    )


def check_texts(texts: object, name: str) -> list[str]:
    """Return a list of texts, of one for a str."""
    return [texts] if isinstance(texts, str) else checked_texts(each_text(texts, name), name, 0, pairs=False)  # type: ignore[return-value]


def check_batch_size(value: object) -> int:
    """Return a number of texts that a forward pass may have."""
    return checks.integer(value, "batch_size", 1, MAX_BATCH_SIZE)


def checked_texts(texts: Iterable[object], name: str, first: int, pairs: bool) -> list[Text]:
    """Return texts as a list, each a str, or with `pairs` perhaps two of them."""
    found: list[Text] = []
    for number, text in enumerate(texts, first):
        if isinstance(text, str):
            found.append(text)
        elif pairs and len(_strings(text)) == 2:
            found.append(_strings(text))  # type: ignore[arg-type]
        else:
            wanted = "str or a pair of str" if pairs else "str"
            raise InputError(f"{name}: expected {wanted}, got {type(text).__name__} as number {number}: {shown(text)}")
    return found


def _strings(item: object) -> tuple[str, ...]:
    """Return the texts of a tuple or list, nothing if anything else is in it."""
    is_pair = isinstance(item, (tuple, list)) and all(isinstance(part, str) for part in item)
    return tuple(item) if is_pair else ()  # type: ignore[arg-type]


def callers_level() -> int:
    """Return the ``stacklevel`` at which `warnings.warn`, called by the caller of this, names the user's own line."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    return level
