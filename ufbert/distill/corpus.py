"""Texts of a corpus, tokenised chunk by chunk. What chunk i holds depends on the seed and i alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..batch import Batch
from ..tokenizer import Tokenizer

__all__ = ["CHUNK", "Corpus", "TextBatch"]

CHUNK = 4_096  # texts that are tokenised, sorted by length and cut into batches together


@dataclass(frozen=True)
class TextBatch:
    """Texts of about one length: ragged for the teacher, padded for the student.

    Attributes
    ----------
    ragged : Batch
    input_ids : (N, S) int64 tensor
    mask : (N, S) bool tensor
        False at padding.
    """

    ragged: Batch
    input_ids: torch.Tensor
    mask: torch.Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens without padding."""
        return self.ragged.num_tokens


class Corpus:
    """An endless sequence of chunks of batches: the texts in a new random order for each pass.

    Parameters
    ----------
    lines : list of str
    tokenizer : Tokenizer
    batch_tokens, max_length, joined, seed
        See `Recipe`.
    """

    def __init__(
        self, lines: list[str], tokenizer: Tokenizer, batch_tokens: int, max_length: int, joined: float, seed: int
    ) -> None:
        self.lines, self.tokenizer = lines, tokenizer
        self.batch_tokens, self.joined, self.seed = batch_tokens, joined, seed
        self.max_length = tokenizer.checked_length(min(max_length, tokenizer.max_length))
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def chunk(self, index: int) -> list[TextBatch]:
        """Return the batches of chunk `index`, in random order."""
        random = np.random.default_rng((self.seed, 1, index))
        encodings, _ = self.tokenizer.encode(self._texts(index, random), self.max_length)
        encodings.sort(key=len)
        batches, start = [], 0
        while start < len(encodings):
            stop = start + 1
            while stop < len(encodings) and (stop + 1 - start) * len(encodings[stop]) <= self.batch_tokens:
                stop += 1
            batches.append(self._batch(encodings[start:stop]))
            start = stop
        return [batches[i] for i in random.permutation(len(batches))]

    def _texts(self, index: int, random: np.random.Generator) -> list[str]:
        texts = []
        for place in range(index * CHUNK, (index + 1) * CHUNK):
            text = self._line(place)
            if random.random() < self.joined:
                others = random.integers(len(self.lines), size=random.integers(1, 5))
                text = " ".join([text, *(self.lines[other] for other in others)])
            texts.append(text)
        return texts

    def _line(self, place: int) -> str:
        epoch, offset = divmod(place, len(self.lines))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.lines)))
        return self.lines[self._order[1][offset]]

    def _batch(self, encodings: list[Any]) -> TextBatch:
        longest = len(encodings[-1])
        ids = np.zeros((len(encodings), longest), np.int64)
        mask = np.zeros((len(encodings), longest), bool)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = True
        return TextBatch(self.tokenizer.batch(encodings), torch.from_numpy(ids), torch.from_numpy(mask))
