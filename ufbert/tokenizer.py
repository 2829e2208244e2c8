"""Text to token ids, through the ``tokenizers`` library.

The library's tokenizer is configured once, without truncation and padding, and never again: so any number of threads
may share it, and what is cut off is known to the token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import checks
from .errors import InputError, shown

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Text", "Tokenizer", "cut_pair"]

Text = str | tuple[str, str]
"""A text, or a pair of them."""

ALONE = 4  # texts below which waking the library's threads takes longer than tokenising
SHORT = 20_000  # characters, above which other threads should run meanwhile: a batch lets go of Python's lock
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_SURROGATES = re.compile("[\ud800-\udfff]")  # half characters, which UTF-8 cannot hold


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """A ``tokenizers.Tokenizer`` and what a model needs to know of it.

    Attributes
    ----------
    backend : tokenizers.Tokenizer
        Without truncation, padding and a post-processor that does anything: that would change offsets twice.
    processor : tokenizers.processors.PostProcessor
        Adds special tokens to a text or pair that was cut.
    max_length : int
        Tokens that the model can take, special tokens included.
    special_tokens : mapping of str to str
        "mask_token", "unk_token", ... to their texts.
    lowercase : bool
        Lowercase texts first, as sentence-transformers' ``do_lower_case`` asks.
    clean_up_spaces : bool
        Decode with the spaces around English punctuation taken out, as ``clean_up_tokenization_spaces`` asks.
    truncate_left : bool
        Cut long texts at their beginning.
    truncate_first : bool
        Of a long pair cut the first text only, where the second leaves room for some of it.
    takes_words : bool
        Whether words may be given as such: RoBERTa's byte-level BPE needs a space before each, which
        ``add_prefix_space`` puts there.
    """

    backend: Any
    processor: Any
    max_length: int
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    lowercase: bool = False
    clean_up_spaces: bool = False
    truncate_left: bool = False
    truncate_first: bool = False
    takes_words: bool = True

    def encode(
        self, texts: Sequence[Text], max_length: int | None = None, offsets: bool = False
    ) -> tuple[list[Encoding], list[int]]:
        """Tokenise texts or pairs, with special tokens, cut to `max_length`.

        Parameters
        ----------
        texts : sequence of str or of (str, str)
        max_length : int, optional
            Special tokens included; None for the model's own.
        offsets : bool
            Also compute where in the text each token stands.

        Returns
        -------
        encodings : list of tokenizers.Encoding
        truncated : list of int
            For each text the number of tokens that were cut off.

        Raises
        ------
        InputError
            If a text is not a str, or `max_length` leaves no room for one token.
        """
        pairs = [_parts(text, self.lowercase) for text in texts]
        limit = self.max_length if max_length is None else max_length
        limit = self.checked_length(limit, any(len(parts) == 2 for parts in pairs))
        # Special tokens come after the cut, so that each text is tokenised once.
        pieces = iter(self._pieces([part for parts in pairs for part in parts], offsets))
        encodings, truncated = [], []
        rooms = [limit - self.num_special_tokens(is_pair) for is_pair in (False, True)]
        for parts in pairs:
            encoded = [next(pieces) for _ in parts]
            side = "left" if self.truncate_left else "right"
            truncated.append(_cut(encoded, rooms[len(parts) - 1], side, self.truncate_first))
            encodings.append(self.processor.process(*encoded))
        return encodings, truncated

    def min_length(self, pair: bool = False) -> int:
        """Tokens of the shortest text (or pair) that has any, special tokens included."""
        return self.num_special_tokens(pair) + 1

    def num_special_tokens(self, pair: bool = False) -> int:
        """Number of special tokens that a text (or pair) gets."""
        return int(self.processor.num_special_tokens_to_add(pair))

    def checked_length(self, max_length: object, pair: bool = False) -> int:
        """Return `max_length` if at least one token fits in, and not more than the model can take."""
        advice = f"the model takes {self.max_length} tokens at most"
        return checks.integer(max_length, "max_seq_length", self.min_length(pair), self.max_length, advice=advice)

    def token_id(self, name: str) -> int | None:
        """Id of a special token such as "mask_token", None if there is none."""
        text = self.special_tokens.get(name)
        return None if text is None else self.backend.token_to_id(text)

    def pieces(self, texts: Sequence[str], offsets: bool = True) -> list[Encoding]:
        """Tokenise texts uncut and without special tokens."""
        return self._pieces([_checked(text, self.lowercase) for text in texts], offsets)

    def pieces_of_words(self, texts: Sequence[Sequence[str]]) -> list[Encoding]:
        """Tokenise texts whose words are given, uncut and without special tokens; offsets count in each word."""
        if not self.takes_words:
            raise InputError(
                "is_split_into_words: expected a tokenizer that puts a space before each word (add_prefix_space in "
                "tokenizer_config.json), got one that does not; join the words to a text"
            )
        checked = [[_checked(word, self.lowercase) for word in words] for words in texts]
        encodings: list[Encoding] = self.backend.encode_batch(checked, is_pretokenized=True, add_special_tokens=False)
        return encodings

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """Text of token ids."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        for spaced in _SPACED if self.clean_up_spaces else ():
            text = text.replace(spaced, spaced.strip())
        return text

    def join_tokens(self, tokens: Sequence[str]) -> str:
        """Text of tokens, as transformers' ``convert_tokens_to_string``."""
        decoder = self.backend.decoder
        text: str = decoder.decode(list(tokens)) if decoder is not None else " ".join(tokens)
        return text

    def _pieces(self, texts: list[str], offsets: bool) -> list[Encoding]:
        """Encodings of texts, uncut and without special tokens."""
        if len(texts) < ALONE and sum(map(len, texts)) < SHORT:
            return [self.backend.encode(text, add_special_tokens=False) for text in texts]
        encode = None if offsets else getattr(self.backend, "encode_batch_fast", None)
        encodings: list[Encoding] = (encode or self.backend.encode_batch)(texts, add_special_tokens=False)
        return encodings


def _cut(parts: Sequence[Encoding], room: int, side: str, first_only: bool) -> int:
    """Cut a text or a pair at one side to `room` tokens, the longer or only the first; return by how much."""
    before = [len(part) for part in parts]
    if sum(before) <= room:
        return 0
    after = cut_pair(before[0], before[1], room) if len(parts) == 2 else (room,)
    if first_only and len(parts) == 2 and before[1] < room:
        after = room - before[1], before[1]
    for part, length, longer in zip(parts, after, before, strict=True):
        if length < longer:
            part.truncate(length, direction=side)
    return sum(before) - sum(after)


def cut_pair(first: int, second: int, room: int) -> tuple[int, int]:
    """Lengths of the two texts of a pair, cut to `room` tokens together, "longest first" as transformers does."""
    short, long = sorted((first, second))
    if short + long <= room:
        return first, second
    long = max(short, room - short)
    if short + long > room:
        short = room // 2
        long = room - short
    return (long, short) if first > second else (short, long)


def _parts(text: object, lowercase: bool) -> tuple[str, ...]:
    """Take a text or a pair as a tuple."""
    if isinstance(text, (tuple, list)) and len(text) == 2 and all(isinstance(part, str) for part in text):
        return _checked(text[0], lowercase), _checked(text[1], lowercase)
    return (_checked(text, lowercase),)


def _checked(text: object, lowercase: bool) -> str:
    if not isinstance(text, str):
        found = f"{type(text).__name__}: {shown(text)}"
        raise InputError(f"texts: expected str, or pairs of str where pairs are taken, got {found}")
    if not text.isascii():
        text = _SURROGATES.sub("\ufffd", text)
    checked: str = text.lower() if lowercase else text
    return checked
