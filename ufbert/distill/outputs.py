"""What the teacher gives for a chunk of the corpus, computed as it is needed, or once and kept for other runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoint.writing import whole_file
from ..errors import InputError
from .corpus import Corpus, TextBatch
from .recipe import Recipe
from .teacher import Teacher

__all__ = ["Outputs"]

FACTS = "outputs.json"
SHAPING = ("batch_tokens", "max_length", "joined", "seed")  # of a recipe: what a chunk's batches depend on


class Outputs:
    """The corpus's batches with the teacher's outputs.

    Parameters
    ----------
    teacher : Teacher
    corpus : Corpus
    recipe : Recipe
    folder : Path, optional
        Keep outputs here, float16, a file a chunk (2 bytes x layers x hidden size a token), for later passes over the
        same chunks and for other conversions with the same teacher, corpus, seed and batches. They may run at once.
    source : dict of str to str
        Teacher and corpus by name: what is kept must be of the same.

    Raises
    ------
    InputError
        If the folder holds outputs of something else.
    """

    def __init__(
        self, teacher: Teacher, corpus: Corpus, recipe: Recipe, folder: Path | None, source: dict[str, str]
    ) -> None:
        self.teacher, self.corpus, self.chunks, self.folder = teacher, corpus, recipe.chunks, folder
        if folder is not None:
            facts = {name: source[name] for name in ("teacher", "teacher_dtype", "corpus", "texts")}
            self._check(folder, facts | {name: str(getattr(recipe, name)) for name in SHAPING})

    def chunk(self, index: int, start: int) -> Iterator[tuple[TextBatch, list[Tensor]]]:
        """Give the batches of a chunk from number `start` on, each with L tensors (T, H) float32."""
        if self.chunks:
            index %= self.chunks
        batches = self.corpus.chunk(index)
        if self.folder is None:
            for batch in batches[start:]:
                yield batch, [torch.from_numpy(z) for z in self.teacher(batch.ragged).outputs]
            return
        kept = self._kept(self.folder / f"chunk-{index}.npy", batches)  # (L, T, H)
        ends = np.cumsum([batch.num_tokens for batch in batches])
        for batch, end in list(zip(batches, ends, strict=True))[start:]:
            yield batch, list(torch.from_numpy(kept[:, end - batch.num_tokens : end].astype(np.float32)))

    def _kept(self, file: Path, batches: list[TextBatch]) -> np.ndarray:
        """Map a chunk's outputs, which are computed first where that was not done."""
        if not file.exists():
            runs = [np.stack(self.teacher(batch.ragged).outputs).astype(np.float16) for batch in batches]
            try:
                with whole_file(file) as part, open(part, "wb") as stream:
                    np.save(stream, np.concatenate(runs, axis=1))
            except OSError as error:
                size = f"{sum(run.nbytes for run in runs):,} bytes for each chunk"
                raise InputError(
                    f"{file}: expected room for {size}, found: {error}; make room and give the same command again, "
                    "or train without kept outputs"
                ) from None
        return np.load(file, mmap_mode="r", allow_pickle=False)

    @staticmethod
    def _check(folder: Path, facts: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FACTS
        if not file.exists():
            with whole_file(file) as part:
                part.write_text(json.dumps(facts, indent=1) + "\n")
        found = json.loads(file.read_text())
        for name, mine in facts.items():
            if found.get(name) != mine:
                raise InputError(
                    f"{file}: expected outputs kept with {name} = {mine!r}, found {found.get(name)!r}; "
                    "give what they were made with, or another folder"
                )
