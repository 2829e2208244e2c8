"""Texts for token classifiers: whole or as words, cut or in windows that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError, shown
from ..text_model import TextModel, windows
from ..tokenizer import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Reading", "Sentence", "Span", "read_sentences"]


class Reading(NamedTuple):
    """How texts are read.

    Attributes
    ----------
    stride : int or None
        Tokens that neighbouring windows of a long text share; None to cut long texts.
    delimiter : str or None
        What stands between the words of texts that come as lists of words; None for texts that are str.
    on_overflow : {"truncate", "warn", "error"}
        What to do with texts that are cut.
    """

    stride: int | None
    delimiter: str | None
    on_overflow: str


class Span(NamedTuple):
    """A window of a text's tokens, and where its words begin in the text, if the words were given."""

    encoding: Encoding
    word_starts: list[int] | None


class Sentence(NamedTuple):
    """A text with its windows."""

    text: str
    spans: list[Span]


def read_sentences(model: TextModel, texts: Iterable[object], reading: Reading, size: int) -> Iterator[list[Sentence]]:
    """Read and tokenise texts, at most `size` at a time.

    Raises
    ------
    InputError
        If one is of another type, too long with ``on_overflow="error"``, or `stride` does not fit the model.
    """
    tokenizer = model.tokenizer
    room = model.max_length - tokenizer.num_special_tokens()
    stride, side = reading.stride, "left" if tokenizer.truncate_left else "right"
    if stride is not None and not 0 <= stride < room:
        raise InputError(f"stride: expected from 0 to {room - 1}, for a window has {room} tokens, got {stride}")
    first = 0
    for items in windows(texts, size):
        found, truncated = [], []
        for text, pieces, starts in _tokenised(tokenizer, items, reading.delimiter, first):
            truncated.append(0 if stride is not None else max(len(pieces) - room, 0))
            if len(pieces) > room:
                pieces.truncate(room, stride=stride or 0, direction=side)
            cut = [pieces, *(pieces.overflowing if stride is not None else [])]
            found.append(Sentence(text, [Span(tokenizer.processor.process(each), starts) for each in cut]))
        model.check_overflow(truncated, reading.on_overflow, first)
        yield found
        first += len(items)


def _tokenised(
    tokenizer: Tokenizer, items: list[object], delimiter: str | None, first: int
) -> Iterator[tuple[str, Encoding, list[int] | None]]:
    """Give texts, their tokens, and where their words begin; all are tokenised together."""
    for number, item in enumerate(items, first):
        is_words = isinstance(item, (list, tuple)) and all(isinstance(word, str) for word in item)
        if not (isinstance(item, str) if delimiter is None else is_words):
            wanted = "str" if delimiter is None else "lists of words, for is_split_into_words is True"
            raise InputError(f"texts: expected {wanted}, got {type(item).__name__} as number {number}: {shown(item)}")
    if delimiter is None:
        texts: list[str] = items  # type: ignore[assignment]
        for text, pieces in zip(texts, tokenizer.pieces(texts), strict=True):
            yield text, pieces, None
        return
    sentences: list[list[str]] = items  # type: ignore[assignment]
    for words, pieces in zip(sentences, tokenizer.pieces_of_words(sentences), strict=True):
        starts = accumulate((len(word) + len(delimiter) for word in words), initial=0)
        yield delimiter.join(words), pieces, list(starts)
