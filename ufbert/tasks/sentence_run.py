"""One call of a sentence encoder: texts in windows, their embeddings or all that the model computes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.sentence import SentenceModel
from ..heads import normalize
from ..text_model import WINDOW, Run, TextModel, Window

__all__ = ["OUTPUT_VALUES", "Call", "Embeddings", "Outputs"]

OUTPUT_VALUES = ("sentence_embedding", "token_embeddings")


class Embeddings(NamedTuple):
    """What ``encode(..., return_truncated=True)`` gives.

    Attributes
    ----------
    embeddings : (N, dim) or (dim,) float32 array
    truncated : (N,) int64 array
        Tokens that were cut off each text.
    """

    embeddings: NDArray[np.float32]
    truncated: NDArray[np.int64]


class Outputs(TypedDict, total=False):
    """What ``encode(..., output_value=None)`` gives for a text of S tokens.

    Attributes
    ----------
    sentence_embedding : (dim,) float32 array
    token_embeddings : (S, H) float32 array
        Of all tokens, special ones and a prompt's too.
    input_ids, token_type_ids, attention_mask : (S,) int64 array
    hidden_states : tuple of (S, H) float32 arrays
        With ``output_hidden_states=True``: the embeddings, then what each layer gives.
    """

    sentence_embedding: NDArray[np.float32]
    token_embeddings: NDArray[np.float32]
    input_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    hidden_states: tuple[NDArray[np.float32], ...]


class Call(NamedTuple):
    """The settings of a call, checked."""

    model: SentenceModel
    texts: TextModel  # with the call's own prompt
    width: int
    batch_size: int
    normalize: bool
    on_overflow: str

    def windows(self, sentences: Iterable[object], size: int) -> Iterator[tuple[NDArray[np.float32], Window]]:
        """Embed window by window: (N, width) each."""
        skipped = self._prompt_tokens()
        for window in self._read(sentences, size):
            out = np.empty((len(window.texts), self.width), np.float32)
            for run in self.texts.run(window.encodings, self.batch_size):
                out[run.indices] = self._embedded(run, skipped)
            yield out, window

    def embeddings(self, sentences: Iterable[object], given: object, show_progress_bar: bool) -> Embeddings:
        """Embed all of `sentences`, which read `given`."""
        count = len(given) if isinstance(given, Sized) and not isinstance(given, str) else int(isinstance(given, str))
        rows, truncated = np.empty((count, self.width), np.float32), []
        with Progress(count, show_progress_bar) as bar:
            for found, window in self.windows(sentences, WINDOW):
                done = window.first + len(found)
                if done > len(rows):  # of an iterator, whose length is not known
                    rows.resize((2 * done, self.width), refcheck=False)
                rows[window.first : done] = found
                truncated += window.truncated
                bar.update(len(found))
        if len(rows) > len(truncated):
            rows.resize((len(truncated), self.width), refcheck=False)
        return Embeddings(rows, np.array(truncated, np.int64))

    def outputs(self, sentences: Iterable[object], hidden_states: bool) -> Iterator[Outputs]:
        """Give all that is computed of each text, in order."""
        skipped, encoder = self._prompt_tokens(), self.texts.model.encoder
        for window in self._read(sentences, WINDOW):
            found: list[Outputs] = [{} for _ in window.texts]
            for indices, batch in self.texts.batches(window.encodings, self.batch_size):
                states = encoder.hidden_states(batch) if hidden_states else [encoder(batch)]
                run = Run(indices, batch, states[-1])
                embeddings, ends = self._embedded(run, skipped), run.batch.cu_seqlens.tolist()
                for row, index, start, stop in zip(embeddings, run.indices, ends, ends[1:], strict=False):
                    ids, types = (
                        array[start:stop].astype(np.int64) for array in (run.batch.input_ids, run.batch.token_type_ids)
                    )
                    found[index] = {
                        "sentence_embedding": row,
                        "token_embeddings": run.hidden[start:stop].copy(),
                        "input_ids": ids,
                        "token_type_ids": types,
                        "attention_mask": np.ones_like(ids),
                    }
                    if hidden_states:
                        found[index]["hidden_states"] = tuple(state[start:stop].copy() for state in states)
            yield from found

    def _read(self, sentences: Iterable[object], size: int) -> Iterator[Window]:
        return self.texts.windows(sentences, "sentences", max(size, self.batch_size), self.on_overflow)

    def _embedded(self, run: Run, skipped: int) -> NDArray[np.float32]:
        embeddings = self.model.embed(run.hidden, run.batch, skipped)[:, : self.width]  # (T, H) -> (N, dim)
        return normalize(embeddings) if self.normalize else embeddings

    def _prompt_tokens(self) -> int:
        """Tokens at the start of each text that pooling leaves out: [CLS] and the prompt, if the model says so."""
        if not self.texts.prompt or self.model.pooling.include_prompt:
            return 0
        encodings, _ = self.texts.tokenize([""])
        return len(encodings[0]) - 1  # without [SEP]


class Progress:
    """A progress bar on stderr, or none."""

    def __init__(self, total: int, show: bool) -> None:
        self.bar = None
        if show:
            from tqdm import tqdm  # 50 milliseconds

            self.bar = tqdm(total=total or None, unit="text", desc="embed")

    def update(self, count: int) -> None:
        """Move on by some texts."""
        if self.bar is not None:
            self.bar.update(count)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
