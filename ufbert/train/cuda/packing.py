"""Texts of a tokenised corpus, packed into rows of `ROW` tokens. A batch depends on the seed and its number alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..tokens import TokenisedTexts
from .functions import ROW

__all__ = ["Packing", "batches"]

REPLACED = 0.15  # of the tokens of a noisy text
SPARE = 0.15  # more texts than a batch holds: they fill what others leave of a row


@dataclass(frozen=True)
class Packing:
    """How texts become batches.

    Attributes
    ----------
    tokens : int
        Size of a batch, padding included; a multiple of `ROW`.
    seed : int
    max_length : int
        Tokens of a text, special tokens included.
    joined : float
        Share of texts that are followed by one to four more.
    cropped : float
        Share of the others that begin at a later token.
    noisy : float
        Share of texts some of whose tokens, `REPLACED`, are drawn anew from the whole vocabulary.
    """

    tokens: int
    seed: int
    max_length: int = ROW
    joined: float = 0.0
    cropped: float = 0.0
    noisy: float = 0.0

    @property
    def segments(self) -> int:
        """No batch holds more texts: one has three tokens or more."""
        return self.tokens // 3

    def batch(self, texts: TokenisedTexts, index: int) -> np.ndarray:
        """Return input ids, position ids and segments: (3, T) int32."""
        random = np.random.default_rng((self.seed, 3, index))
        out = np.empty((3, self.tokens), np.int32)
        out[0], out[1], out[2] = texts.padding, 0, self.segments
        for segment, (place, text) in enumerate(self._placed(self._texts(texts, index, random))):
            stop = place + len(text)
            out[0, place:stop] = text
            out[1, place:stop] = np.arange(len(text))
            out[2, place:stop] = segment
        return out

    def _texts(self, texts: TokenisedTexts, index: int, random: np.random.Generator) -> list[np.ndarray]:
        """Texts for one batch, special tokens included, in random order, some more than it holds."""
        number = len(texts.starts) - 1
        wanted = max(1, round(self.tokens / (len(texts.ids) / number + 2)))
        epoch, place = divmod(index * wanted, number)
        chosen = np.take(
            _order(self.seed, epoch, number), np.arange(place, place + round(wanted * (1 + SPARE))), mode="wrap"
        )
        chances = random.random((len(chosen), 3))
        most, result = self.max_length - 2, []
        for text, (join, crop, noise) in zip(chosen, chances, strict=True):
            ids = texts.ids[texts.starts[text] : texts.starts[text + 1]]
            if join < self.joined:
                others = random.integers(number, size=random.integers(1, 5))
                ids = np.concatenate([ids, *(texts.ids[texts.starts[i] : texts.starts[i + 1]] for i in others)])
            elif crop < self.cropped and len(ids) > 12:
                ids = ids[random.integers(len(ids) * 6 // 10) :]
            ids = ids[:most]
            if noise < self.noisy:
                drawn = random.choice(texts.words, len(ids))
                ids = np.where(random.random(len(ids)) < REPLACED, drawn, ids)
            result.append(np.concatenate([[texts.first], ids, [texts.last]]))
        return result

    def _placed(self, texts: list[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Places of texts: in their order as long as they fit, then the longest of the spare ones that fits."""
        main = iter(texts[: round(len(texts) / (1 + SPARE))])
        spare: list[list[np.ndarray]] = [[] for _ in range(ROW + 1)]
        for text in texts[round(len(texts) / (1 + SPARE)) :]:
            spare[len(text)].append(text)
        held = next(main, None)
        for place in range(0, self.tokens, ROW):
            left = ROW
            while held is not None and len(held) <= left:
                yield place + ROW - left, held
                left -= len(held)
                held = next(main, None)
            for length in range(left, 2, -1):
                while length <= left and spare[length]:
                    yield place + ROW - left, spare[length].pop()
                    left -= length


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, number: int) -> np.ndarray:
    """The order of texts in one pass over the corpus."""
    return np.random.default_rng((seed, 2, epoch)).permutation(number)


class _Batches(IterableDataset[torch.Tensor]):
    def __init__(self, texts: TokenisedTexts, packing: Packing, first: int) -> None:
        super().__init__()
        self.texts, self.packing, self.first = texts, packing, first

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        step, offset = (1, 0) if worker is None else (worker.num_workers, worker.id)
        index = self.first + offset
        while True:
            yield torch.from_numpy(self.packing.batch(self.texts, index))
            index += step


def batches(texts: TokenisedTexts, packing: Packing, first: int = 0, workers: int = 0) -> Iterator[torch.Tensor]:
    """Endless batches (3, T) int32 from number `first` on, made by other processes if there are `workers`."""
    pin = workers > 0 and torch.cuda.is_available()
    source = _Batches(texts, packing, first)
    ahead = 8 if workers else None
    yield from DataLoader(source, batch_size=None, num_workers=workers, pin_memory=pin, prefetch_factor=ahead)
