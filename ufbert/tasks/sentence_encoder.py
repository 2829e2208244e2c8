"""Sentence embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..checkpoint.folder import ModelFolder
from ..checkpoint.sentence import SIMILARITIES, SentenceModel, load_sentence_model
from ..errors import InputError, shown
from ..heads import normalize
from ..text_model import ON_OVERFLOW, WINDOW, TextModel, Window, check_batch_size, check_texts, each_text
from .bundled import model_folder

__all__ = ["Embeddings", "SentenceEncoder"]


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


class _Call(NamedTuple):
    """One call of an encoder: its settings, checked."""

    model: SentenceModel
    texts: TextModel  # with the call's own prompt
    width: int
    batch_size: int
    normalize: bool
    on_overflow: str

    def windows(self, sentences: Iterable[object], size: int) -> Iterator[tuple[NDArray[np.float32], Window]]:
        """Embed window by window: (N, width) each."""
        for window in self.texts.windows(sentences, "sentences", max(size, self.batch_size), self.on_overflow):
            yield self._embed(window), window

    def _embed(self, window: Window) -> NDArray[np.float32]:
        out = np.empty((len(window.texts), self.width), np.float32)
        skipped = self._prompt_tokens()
        for run in self.texts.run(window.encodings, self.batch_size):
            embeddings = self.model.embed(run.hidden, run.batch, skipped)[:, : self.width]  # (T, H) -> (N, dim)
            out[run.indices] = normalize(embeddings) if self.normalize else embeddings
        return out

    def _prompt_tokens(self) -> int:
        """Tokens at the start of each text that pooling leaves out: [CLS] and the prompt, if the model says so."""
        if not self.texts.prompt or self.model.pooling.include_prompt:
            return 0
        encodings, _ = self.texts.tokenize([""])
        return len(encodings[0]) - 1  # without [SEP]


class SentenceEncoder:
    """Turns texts into embeddings, as sentence-transformers does with the same folder.

    Parameters
    ----------
    folder : str or path, optional
        A sentence-transformers folder, or a BERT folder if `pooling` is given; or the name of a bundled model (package
        ``ufbert-weights``), such as "all-MiniLM-L6-v2". None for the bundled default.
    max_seq_length : int, optional
        Tokens a text may have, special tokens included; by default what the folder says.
    pooling : {"cls", "mean", "max", "mean_sqrt_len", "weightedmean", "lasttoken"}, optional
        Instead of what the folder says.
    on_overflow : {"truncate", "warn", "error"}
        What to do with longer texts, where a call does not say.
    dtype : {"float32", "bfloat16", "int8"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    InputError
        If `max_seq_length` or `on_overflow` does not fit.

    Examples
    --------
    >>> import ufbert
    >>> encoder = ufbert.SentenceEncoder()
    >>> encoder.encode(["A first sentence.", "And another one."]).shape
    (2, 384)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        max_seq_length: int | None = None,
        pooling: str | None = None,
        on_overflow: str = "truncate",
        dtype: str = "float32",
    ) -> None:
        self.on_overflow = checks.choice(on_overflow, "on_overflow", ON_OVERFLOW)
        self._model = load_sentence_model(ModelFolder(model_folder(folder)), pooling, dtype)
        self._texts = replace(self._model.texts, prompt="")
        settings = self._model.settings
        self.prompts = {"query": "", "document": ""} | settings.prompts
        self.default_prompt_name = settings.default_prompt_name
        self.similarity_fn_name = settings.similarity_fn_name
        self.truncate_dim = settings.truncate_dim
        if max_seq_length is not None:
            self.max_seq_length = max_seq_length

    @property
    def max_seq_length(self) -> int:
        """Tokens a text may have, special tokens included; longer ones are cut."""
        return self._texts.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._texts = self._texts.with_max_length(value)

    @property
    def dimension(self) -> int:
        """Width of an embedding."""
        return self._model.dimension

    def get_sentence_embedding_dimension(self) -> int:
        """Width of an embedding, by its name in sentence-transformers."""
        return self.dimension

    @overload
    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
        return_truncated: Literal[False] = False,
    ) -> NDArray[np.float32]: ...

    @overload
    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
        *,
        return_truncated: Literal[True],
    ) -> Embeddings: ...

    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
        return_truncated: bool = False,
    ) -> NDArray[np.float32] | Embeddings:
        """Embed texts.

        Parameters
        ----------
        sentences : str or iterable of str
        batch_size : int
            Texts in one forward pass at most, which `ufbert.encoder.TOKEN_BUDGET` tokens bound too. The order and the
            grouping of texts is ours: texts of one length go together.
        show_progress_bar : bool, optional
            Show progress on stderr; None for no.
        normalize_embeddings : bool
            Scale to length 1, also where the model does not.
        truncate_dim : int, optional
            Keep only the first dimensions; by default as many as the model's own `truncate_dim` says, usually all.
        prompt, prompt_name : str, optional
            Put before each text: literally, or one of the model's `prompts` by name.
        on_overflow : {"truncate", "warn", "error"}, optional
            What to do with texts longer than `max_seq_length`.
        return_truncated : bool
            Return `Embeddings`, which also counts the tokens that were cut off.

        Returns
        -------
        (dim,) float32 array for a str, (N, dim) for an iterable, in its order; or `Embeddings`

        Raises
        ------
        InputError
            If an argument does not fit, or with ``on_overflow="error"`` if a text is too long.
        """
        call = self._call(batch_size, normalize_embeddings, truncate_dim, prompt, prompt_name, on_overflow)
        texts: Iterable[str] = [sentences] if isinstance(sentences, str) else sentences
        read = each_text(texts, "sentences")
        count = len(texts) if isinstance(texts, Sized) else 0
        embeddings, truncated = np.empty((count, call.width), np.float32), []
        with _Progress(count, bool(show_progress_bar)) as bar:
            for rows, window in call.windows(read, WINDOW):
                done = window.first + len(rows)
                if done > len(embeddings):  # of an iterator, whose length is not known
                    embeddings.resize((2 * done, call.width), refcheck=False)
                embeddings[window.first : done] = rows
                truncated += window.truncated
                bar.update(len(rows))
        if len(embeddings) > len(truncated):
            embeddings.resize((len(truncated), call.width), refcheck=False)
        result = embeddings[0] if isinstance(sentences, str) else embeddings
        return Embeddings(result, np.array(truncated, np.int64)) if return_truncated else result

    def stream(
        self,
        sentences: Iterable[str],
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        """Embed any number of texts, holding `batch_size` of them at a time.

        Parameters are those of `encode`; memory does not grow with the number of texts.

        Yields
        ------
        (dim,) float32 array
            One for each text, in order.
        """
        call = self._call(batch_size, normalize_embeddings, truncate_dim, prompt, prompt_name, on_overflow)
        windows = call.windows(each_text(sentences, "sentences"), 0)
        return (row for rows, _ in windows for row in rows)

    encode_iter = stream
    """Its former name."""

    def tokenize(self, texts: str | Sequence[str]) -> dict[str, NDArray[np.int64]]:
        """Tokenise texts, padded to the longest, as sentence-transformers' ``tokenize``.

        Returns
        -------
        dict of (N, S) int64 arrays
            ``input_ids``, ``token_type_ids``, ``attention_mask``.
        """
        encodings, _ = self._texts.tokenize(check_texts(texts, "texts"))
        ids, types, mask = self._texts.batch(encodings).padded(self._texts.model.config.pad_token_id)
        return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """Similarity of every embedding to every other one, by the model's `similarity_fn_name`.

        Parameters
        ----------
        embeddings1, embeddings2 : (N, dim), (M, dim) arrays, or (dim,) for one

        Returns
        -------
        (N, M) float32 array
            Cosine, dot product, or the negative Euclidean or Manhattan distance.

        Raises
        ------
        InputError
            If the arguments are not such arrays.
        """
        checks.choice(self.similarity_fn_name, "similarity_fn_name", SIMILARITIES)
        try:
            a, b = (np.atleast_2d(np.asarray(e, np.float32)) for e in (embeddings1, embeddings2))
        except (ValueError, TypeError, OverflowError) as error:  # such as rows of different lengths
            raise InputError(f"embeddings: expected two arrays (N, dim) of numbers, got others: {error}") from None
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise InputError(f"embeddings: expected two arrays (N, dim) of one width, got {a.shape} and {b.shape}")
        if self.similarity_fn_name == "cosine":
            a, b = normalize(a), normalize(b)
        scores: NDArray[np.float32] = a @ b.T
        if self.similarity_fn_name in ("euclidean", "manhattan"):
            order = 2 if self.similarity_fn_name == "euclidean" else 1
            for row, embedding in zip(scores, a, strict=True):
                row[:] = -np.linalg.norm(b - embedding, ord=order, axis=1)
        return scores

    def _call(
        self, batch_size: int, normalize_embeddings: bool, truncate_dim: int | None, prompt: str | None,
        prompt_name: str | None, on_overflow: str | None,
    ) -> _Call:  # fmt: skip
        on_overflow = self.on_overflow if on_overflow is None else on_overflow
        prompt = self._prompt(prompt, prompt_name)
        return _Call(
            self._model,
            replace(self._texts, prompt=prompt) if prompt else self._texts,
            self._width(truncate_dim),
            check_batch_size(batch_size),
            normalize_embeddings,
            checks.choice(on_overflow, "on_overflow", ON_OVERFLOW),
        )

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        if prompt is None:
            name = self.default_prompt_name if prompt_name is None else prompt_name
            if name is None:
                return ""
            if not isinstance(name, str) or name not in self.prompts:
                raise InputError(
                    f"prompt_name: expected one of the model's prompts {shown(sorted(self.prompts))}, got "
                    f"{shown(name)}; or give the text itself as prompt"
                )
            return self.prompts[name]
        if not isinstance(prompt, str):
            raise InputError(f"prompt: expected str, got {type(prompt).__name__}: {shown(prompt)}")
        return prompt

    def _width(self, truncate_dim: int | None) -> int:
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        if truncate_dim is None:
            return self.dimension
        return min(checks.integer(truncate_dim, "truncate_dim", 1), self.dimension)


class _Progress:
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

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
