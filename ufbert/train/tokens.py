"""A tokenised corpus: token ids end to end, in memory and in files that need no tokenising where they are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..errors import InputError
from ..tokenizer import Tokenizer

__all__ = ["SUFFIX", "TokenisedLines", "TokenisedTexts"]

CHUNK = 100_000  # texts that are tokenised at once
SUFFIX = ".tokens"


@dataclass(frozen=True)
class TokenisedTexts:
    """A corpus without special tokens, end to end.

    Attributes
    ----------
    ids : (T,) uint16 or int32 array
    starts : (N + 1,) int64 array
        Text i is ``ids[starts[i] : starts[i + 1]]``.
    first, last, padding : int
        The tokens before and after a text, and behind the last text of a row.
    words : (V,) int32 array
        The vocabulary without special and unused tokens.
    """

    ids: np.ndarray
    starts: np.ndarray
    first: int
    last: int
    padding: int
    words: np.ndarray

    @classmethod
    def of(cls, lines: Sequence[str], tokenizer: Tokenizer) -> TokenisedTexts:
        """Tokenise texts, on all CPUs; those of fewer than two tokens are left out."""
        if isinstance(lines, TokenisedLines):
            return lines.texts
        raw = tokenizer.backend  # it neither pads nor truncates
        kind = np.uint16 if raw.get_vocab_size() <= 2**16 else np.int32
        parts, lengths = [np.zeros(0, kind)], []
        for begin in range(0, len(lines), CHUNK):
            for encoding in raw.encode_batch_fast(lines[begin : begin + CHUNK], add_special_tokens=False):
                if len(encoding) > 1:
                    parts.append(np.array(encoding.ids, kind))
                    lengths.append(len(encoding))
        return cls._with(np.concatenate(parts), np.array(lengths, np.int64), tokenizer)

    @classmethod
    def _with(cls, ids: np.ndarray, lengths: np.ndarray, tokenizer: Tokenizer) -> TokenisedTexts:
        raw = tokenizer.backend
        whole = tokenizer.encode(["a"])[0][0].ids  # the backend alone adds no special tokens
        special = {token_id for token_id, token in raw.get_added_tokens_decoder().items() if token.special}
        vocabulary = raw.get_vocab()
        words = sorted(i for token, i in vocabulary.items() if i not in special and not token.startswith("[unused"))
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return cls(ids, starts, whole[0], whole[-1], vocabulary.get("[PAD]", 0), np.array(words, np.int32))

    def write(self, file: Path, tokenizer: Tokenizer) -> None:
        """Write the ids, with the vocabulary's digest."""
        lengths = np.diff(self.starts).astype(np.int32)
        save_file({"ids": self.ids, "lengths": lengths}, file, {"vocabulary": _digest(tokenizer)})

    @classmethod
    def read(cls, files: Iterable[Path], tokenizer: Tokenizer) -> TokenisedTexts:
        """Read files that `write` wrote with the same vocabulary, one after another.

        Raises
        ------
        InputError
            If one is not such a file, or of another vocabulary.
        """
        ids, lengths = [], []
        for file in files:
            try:
                with safe_open(file, framework="numpy") as stored:
                    found = (stored.metadata() or {}).get("vocabulary")
                    ids.append(stored.get_tensor("ids"))
                    lengths.append(stored.get_tensor("lengths"))
            except (SafetensorError, OSError) as error:
                raise InputError(
                    f"{file}: expected a tokenised corpus, found a fault ({error}); make it anew"
                ) from None
            if found != _digest(tokenizer):
                raise InputError(
                    f"{file}: expected token ids of the teacher's vocabulary, found another's; make it anew"
                )
        return cls._with(np.concatenate(ids), np.concatenate(lengths), tokenizer)


class TokenisedLines(Sequence[str]):
    """A tokenised corpus as texts, each made of its ids when it is asked for.

    Parameters
    ----------
    texts : TokenisedTexts
    tokenizer : Tokenizer
    """

    def __init__(self, texts: TokenisedTexts, tokenizer: Tokenizer) -> None:
        self.texts, self.tokenizer = texts, tokenizer

    @classmethod
    def read(cls, path: str | os.PathLike[str], tokenizer: Tokenizer) -> TokenisedLines | None:
        """Read a file, or all of a folder, whose names end in `SUFFIX`; None if `path` is neither."""
        place = Path(path)
        files = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place] if place.suffix == SUFFIX else []
        return cls(TokenisedTexts.read(files, tokenizer), tokenizer) if files else None

    def __len__(self) -> int:
        return len(self.texts.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start, stop = self.texts.starts[index % len(self)], self.texts.starts[index % len(self) + 1]
        text: str = self.tokenizer.backend.decode(self.texts.ids[start:stop].tolist(), skip_special_tokens=False)
        return text


def _digest(tokenizer: Tokenizer) -> str:
    """Of a vocabulary."""
    return hashlib.sha256(json.dumps(tokenizer.backend.get_vocab(), sort_keys=True).encode()).hexdigest()
