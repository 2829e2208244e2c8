"""Texts of a corpus, tokenised chunk by chunk. What chunk i holds depends on the seed and i alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...batch import Batch
from ...text_model import TextModel
from ..batches import cut, padded
from ..device import CPU
from .recipe import Recipe

__all__ = ["CHUNK", "Chunks", "TextBatch"]

CHUNK = 4_096  # texts that are tokenised, sorted by length and cut into batches together


@dataclass(frozen=True)
class TextBatch:
    """N texts of about one length, T tokens in all: ragged for the kernels, padded for PyTorch.

    Attributes
    ----------
    ragged : Batch
    input_ids : (N, S) int64 tensor
    mask : (N, S) bool tensor
        False at padding.
    tokens : (T,) int64 tensor
        Where the tokens are among the N * S positions.
    texts : (T,) int64 tensor
        Which text each token is of.
    outputs : (L, T, H) float32 tensor or None
        What the teacher's layers give, where it is known already.
    """

    ragged: Batch
    input_ids: Tensor
    mask: Tensor
    tokens: Tensor
    texts: Tensor
    outputs: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens without padding."""
        return self.ragged.num_tokens

    @property
    def attention_mask(self) -> Tensor | None:
        """The mask as attention takes it, (N, 1, 1, S); None where nothing is padded."""
        return None if self.num_tokens == self.mask.numel() else self.mask[:, None, None, :]

    def unpadded(self, hidden: Tensor) -> Tensor:
        """Take the tokens out of a padded tensor: (N, S, H) -> (T, H)."""
        flat = hidden.flatten(0, 1)
        return flat if self.num_tokens == len(flat) else flat[self.tokens]

    def pool(self, hidden: Tensor, pooling: str) -> Tensor:
        """Sentence embeddings, not normalised: (T, H) -> (N, H). `pooling` is "cls" or "mean"."""
        starts = torch.from_numpy(self.ragged.cu_seqlens).to(hidden.device)
        if pooling == "cls":
            return hidden[starts[:-1]]
        sums = hidden.new_zeros(len(starts) - 1, hidden.shape[1]).index_add(0, self.texts, hidden)
        return sums / starts.diff()[:, None]


class Chunks:
    """An endless sequence of chunks of batches: the texts in a new random order for each pass.

    Parameters
    ----------
    lines : sequence of str
    model : TextModel
        Whose tokenizer and positions the batches have.
    recipe : Recipe
        For the size of batches, the length of texts, the share of joined ones and the seed.
    device : torch.device
        Where batches are put.
    """

    def __init__(self, lines: Sequence[str], model: TextModel, recipe: Recipe, device: torch.device = CPU) -> None:
        self.lines, self.model, self.tokenizer, self.device = lines, model, model.tokenizer, device
        self.batch_tokens, self.joined, self.seed = recipe.batch_tokens, recipe.joined, recipe.seed
        self.max_length = self.tokenizer.checked_length(min(recipe.max_length, self.tokenizer.max_length))
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.zeros(0, np.int64))

    def chunk(self, index: int) -> list[TextBatch]:
        """Return the batches of chunk `index`, in random order."""
        random = np.random.default_rng((self.seed, 1, index))
        encodings, _ = self.tokenizer.encode(self._texts(index, random), self.max_length)
        lengths = np.array([len(encoding) for encoding in encodings])
        batches = []
        for rows in cut(lengths, np.arange(len(encodings)), max_positions=self.batch_tokens):
            chosen = [encodings[row] for row in rows]
            mask, ids = padded([encoding.ids for encoding in chosen])
            tokens = mask.flatten().nonzero()[:, 0]
            texts = torch.arange(len(chosen)).repeat_interleave(torch.from_numpy(lengths[rows]))
            on_device = [tensor.to(self.device) for tensor in (ids, mask, tokens, texts)]
            batches.append(TextBatch(self.model.batch(chosen), *on_device))
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
        known, order = self._order
        if known != epoch:
            order = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.lines))
            self._order = (epoch, order)
        return self.lines[order[offset]]
