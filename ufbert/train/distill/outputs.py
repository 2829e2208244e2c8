"""What the teacher gives for a chunk of the corpus, computed as it is needed, or once and kept for other runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...checkpoint.writing import whole_file
from ...errors import InputError
from .corpus import Chunks, TextBatch
from .recipe import Recipe
from .teacher import Teacher

__all__ = ["Outputs"]

FACTS = "outputs.json"
SHAPING = ("batch_tokens", "max_length", "joined", "seed")  # of a recipe: what a chunk's batches depend on


class Outputs:
    """The corpus's batches, with the teacher's outputs where they are kept.

    On devices other than the CPU the next chunk is tokenised while one is trained on.

    Parameters
    ----------
    teacher : Teacher
    corpus : Chunks
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
        self, teacher: Teacher, corpus: Chunks, recipe: Recipe, folder: Path | None, source: dict[str, str]
    ) -> None:
        self.teacher, self.corpus, self.chunks, self.folder = teacher, corpus, recipe.chunks, folder
        self._worker = None if corpus.device.type == "cpu" else ThreadPoolExecutor(1)
        self._ahead: tuple[int, Future[list[TextBatch]]] | None = None
        if folder is not None:
            facts = {name: source[name] for name in ("teacher", "teacher_dtype", "corpus", "texts")}
            self._check(folder, facts | {name: str(getattr(recipe, name)) for name in SHAPING})

    def chunk(self, index: int, start: int) -> Iterator[TextBatch]:
        """Give the batches of a chunk from number `start` on; those of kept outputs have them."""
        batches = self._batches(index)
        if self.folder is None:
            yield from batches[start:]
            return
        kept = self._kept(self.folder / f"chunk-{self._number(index)}.npy", batches)  # (L, T, H)
        ends = np.cumsum([batch.num_tokens for batch in batches])
        for batch, end in list(zip(batches, ends, strict=True))[start:]:
            outputs = torch.from_numpy(kept[:, end - batch.num_tokens : end].astype(np.float32))
            yield replace(batch, outputs=outputs.to(self.teacher.device))

    def _number(self, index: int) -> int:
        return index % self.chunks if self.chunks else index

    def _batches(self, index: int) -> list[TextBatch]:
        number, following = self._number(index), self._number(index + 1)
        expected, future = self._ahead or (-1, None)
        batches = future.result() if future and expected == number else self.corpus.chunk(number)
        if self._worker is not None:
            self._ahead = following, self._worker.submit(self.corpus.chunk, following)
        return batches

    def _kept(self, file: Path, batches: list[TextBatch]) -> NDArray[np.float16]:
        """Map a chunk's outputs, which are computed first where that was not done."""
        if not file.exists():
            runs = [np.stack([z.cpu().numpy() for z in self.teacher(batch, False).outputs]) for batch in batches]
            halves = [run.astype(np.float16) for run in runs]
            try:
                with whole_file(file) as part, open(part, "wb") as stream:
                    np.save(stream, np.concatenate(halves, axis=1))
            except OSError as error:
                size = f"{sum(run.nbytes for run in halves):,} bytes for each chunk"
                raise InputError(
                    f"{file}: expected room for {size}, found: {error}; make room and give the same command again, "
                    "or train without kept outputs"
                ) from None
        kept: NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
        return kept

    @staticmethod
    def _check(folder: Path, facts: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / FACTS
        if not file.exists():
            with whole_file(file) as part:
                part.write_text(json.dumps(facts, indent=1) + "\n")
        found = json.loads(file.read_text(encoding="utf-8"))
        for name, mine in facts.items():
            if found.get(name) != mine:
                raise InputError(
                    f"{file}: expected outputs kept with {name} = {mine!r}, found {found.get(name)!r}; "
                    "give what they were made with, or another folder"
                )
