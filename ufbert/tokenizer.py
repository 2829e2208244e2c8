"""Text to token ids, through the ``tokenizers`` library.

The library's tokenizer is configured once, without truncation and padding, and never again: so any number of threads
may share it, and what is cut off is known to the token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .batch import Batch
from .errors import InputError

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Text", "Tokenizer", "cut_pair"]

Text = str | tuple[str, str]
"""A text, or a pair of them."""

_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
_SURROGATES = re.compile("[\ud800-\udfff]")  # half characters, which UTF-8 cannot hold


@dataclass(frozen=True)
class Tokenizer:
    """A ``tokenizers.Tokenizer`` and what a model needs to know of it.

    Attributes
    ----------
    backend : tokenizers.Tokenizer
        Without truncation and padding.
    max_length : int
        Tokens that the model can take, special tokens included.
    special_tokens : mapping of str to str
        "mask_token", "unk_token", ... to their texts.
    lowercase : bool
        Lowercase texts first, as sentence-transformers' ``do_lower_case`` asks.
    clean_up_spaces : bool
        Decode with the spaces around English punctuation taken out, as ``clean_up_tokenization_spaces`` asks.
    """

    backend: Any
    max_length: int
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    lowercase: bool = False
    clean_up_spaces: bool = False

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
        limit = self.checked_length(self.max_length if max_length is None else max_length)
        texts = [_checked(text, self.lowercase) for text in texts]
        encode = self.backend.encode_batch if offsets else getattr(
            self.backend, "encode_batch_fast", self.backend.encode_batch
        )
        encodings = encode(texts)
        truncated = [0] * len(texts)
        for index, encoding in enumerate(encodings):
            if len(encoding.ids) > limit:
                truncated[index] = len(encoding.ids) - limit
                encodings[index] = self._cut(texts[index], limit)
        return encodings, truncated

    def checked_length(self, max_length: Any) -> int:
        """Return `max_length` if at least one token of a pair fits in, and not more than the model can take."""
        minimum = self.backend.num_special_tokens_to_add(True) + 1
        if not isinstance(max_length, int) or not minimum <= max_length <= self.max_length:
            raise InputError(
                f"max_seq_length: expected an integer from {minimum} to the model's {self.max_length}, "
                f"got {max_length!r}"
            )
        return max_length

    def batch(self, encodings: Sequence[Encoding]) -> Batch:
        """Join encodings."""
        return Batch.from_sequences([e.ids for e in encodings], [e.type_ids for e in encodings])

    def token_id(self, name: str) -> int | None:
        """Id of a special token such as "mask_token", None if there is none."""
        text = self.special_tokens.get(name)
        return None if text is None else self.backend.token_to_id(text)

    def pieces(self, text: str) -> Encoding:
        """Tokenise one text without special tokens, uncut."""
        return self.backend.encode(_checked(text, self.lowercase), add_special_tokens=False)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """Text of token ids."""
        text = self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        for spaced in _SPACED if self.clean_up_spaces else ():
            text = text.replace(spaced, spaced.strip())
        return text

    def join_tokens(self, tokens: Sequence[str]) -> str:
        """Text of tokens, as transformers' ``convert_tokens_to_string``."""
        decoder = self.backend.decoder
        return decoder.decode(list(tokens)) if decoder is not None else " ".join(tokens)

    def _cut(self, text: Text, limit: int) -> Encoding:
        """Tokenise again without special tokens, cut, then add them: the longer of a pair is cut first."""
        if isinstance(text, str):
            single = self.pieces(text)
            single.truncate(limit - self.backend.num_special_tokens_to_add(False))
            return self.backend.post_process(single)
        first, second = map(self.pieces, text)
        room = limit - self.backend.num_special_tokens_to_add(True)
        for part, length in zip((first, second), cut_pair(len(first.ids), len(second.ids), room), strict=True):
            if length < len(part.ids):
                part.truncate(length)
        return self.backend.post_process(first, second)


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


def _checked(text: Any, lowercase: bool) -> Any:
    if isinstance(text, str):
        text = _SURROGATES.sub("\ufffd", text)
        return text.lower() if lowercase else text
    if isinstance(text, (tuple, list)) and len(text) == 2 and all(isinstance(part, str) for part in text):
        return tuple(_checked(part, lowercase) for part in text)
    found = f"{type(text).__name__}: {text!r:.80}"
    raise InputError(f"texts: expected str, or pairs of str where pairs are taken, got {found}")
