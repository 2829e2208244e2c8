"""Sentence embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np

from ..checkpoint.files import ModelFolder
from ..checkpoint.sentence import SIMILARITIES, load_sentence_model
from ..errors import InputError, shown
from ..heads import normalize
from .bundled import model_folder
from .run import (
    ON_OVERFLOW,
    check_batch_size,
    check_choice,
    check_count,
    check_iterable,
    check_overflow,
    check_texts,
    hidden_states,
    windows,
)

__all__ = ["Embeddings", "SentenceEncoder"]

WINDOW = 1_024  # texts that are tokenised and sorted by length together


class Embeddings(NamedTuple):
    """What ``encode(..., return_truncated=True)`` gives.

    Attributes
    ----------
    embeddings : (N, dim) or (dim,) float32 array
    truncated : (N,) int64 array
        Tokens that were cut off each text.
    """

    embeddings: np.ndarray
    truncated: np.ndarray


class SentenceEncoder:
    """Turns texts into embeddings, as sentence-transformers does with the same folder.

    Parameters
    ----------
    folder : str or path, optional
        A sentence-transformers folder, or a BERT folder if `pooling` is given; or the name of a bundled model (package
        ``ufbert-weights``), such as "all-MiniLM-L6-v2". None for the bundled default.
    max_seq_length : int, optional
        Tokens a text may have, special tokens included; by default what the folder says.
    pooling : {"cls", "mean", "max", "mean_sqrt_len"}, optional
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
        check_choice(on_overflow, "on_overflow", ON_OVERFLOW)
        root = ModelFolder(model_folder(folder))
        self._parts = load_sentence_model(root, pooling, dtype)
        self._max_seq_length = self._parts.max_seq_length
        self.on_overflow = on_overflow
        settings = self._parts.settings
        self.prompts = dict(settings.prompts)
        self.default_prompt_name = settings.default_prompt_name
        self.similarity_fn_name = settings.similarity_fn_name
        self.truncate_dim = settings.truncate_dim
        if max_seq_length is not None:
            self.max_seq_length = max_seq_length

    @property
    def max_seq_length(self) -> int:
        """Tokens a text may have, special tokens included; longer ones are cut."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._max_seq_length = self._parts.tokenizer.checked_length(value)

    @property
    def dimension(self) -> int:
        """Width of an embedding."""
        return self._parts.dimension

    def get_sentence_embedding_dimension(self) -> int:
        """Width of an embedding, by its name in sentence-transformers."""
        return self.dimension

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
        return_truncated: bool = False,
    ) -> Any:
        """Embed texts.

        Parameters
        ----------
        sentences : str or sequence of str
        batch_size : int
            Texts in one pass at most; a pass is also bounded by `ufbert.encoder.TOKEN_BUDGET` tokens. The order and
            the grouping of texts is ours: texts of one length go together.
        show_progress_bar : bool, optional
            Show progress on stderr; None for no.
        normalize_embeddings : bool
            Scale to length 1, also where the model does not.
        truncate_dim : int, optional
            Keep only the first dimensions; by default as many as the model's own `truncate_dim` says, mostly all.
        prompt, prompt_name : str, optional
            Put before each text: literally, or one of the model's `prompts` by name.
        on_overflow : {"truncate", "warn", "error"}, optional
            What to do with texts longer than `max_seq_length`.
        return_truncated : bool
            Return `Embeddings`, which also counts the tokens that were cut off.

        Returns
        -------
        (dim,) float32 array for a str, (N, dim) for a sequence, in its order; or `Embeddings`

        Raises
        ------
        InputError
            If an argument does not fit, or with ``on_overflow="error"`` if a text is too long.
        """
        single = isinstance(sentences, str)
        texts = check_texts(sentences, "sentences")
        width = self._checked_width(truncate_dim)
        embeddings = np.empty((len(texts), width), np.float32)
        truncated = np.zeros(len(texts), np.int64)
        options = self._options(batch_size, normalize_embeddings, prompt, prompt_name, on_overflow)
        done = 0
        with _progress(len(texts), show_progress_bar) as bar:
            for window in windows(texts, max(WINDOW, options["batch_size"])):
                rows = slice(done, done + len(window))
                truncated[rows] = self._encode_window(window, embeddings[rows], done, bar, **options)
                done += len(window)
        result = embeddings[0] if single else embeddings
        return Embeddings(result, truncated) if return_truncated else result

    def encode_iter(
        self,
        sentences: Iterable[str],
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        on_overflow: str | None = None,
    ) -> Iterator[np.ndarray]:
        """Embed any number of texts one after another, holding `batch_size` of them at a time.

        Parameters are those of `encode`; memory does not grow with the input.

        Yields
        ------
        (dim,) float32 array
            One for each text, in order.
        """
        width = self._checked_width(truncate_dim)
        options = self._options(batch_size, normalize_embeddings, prompt, prompt_name, on_overflow)
        return self._iterate(check_iterable(sentences, "sentences"), width, options)

    def tokenize(self, texts: str | Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenise texts, padded to the longest, as sentence-transformers' ``tokenize``.

        Returns
        -------
        dict of (N, S) int64 arrays
            ``input_ids``, ``token_type_ids``, ``attention_mask``.
        """
        texts = check_texts(texts, "texts")
        encodings, _ = self._parts.tokenizer.encode(texts, self.max_seq_length)
        padding = self._parts.model.config.pad_token_id
        longest = max((len(encoding.ids) for encoding in encodings), default=0)
        arrays = {
            "input_ids": np.full((len(texts), longest), padding, np.int64),
            "token_type_ids": np.zeros((len(texts), longest), np.int64),
            "attention_mask": np.zeros((len(texts), longest), np.int64),
        }
        for row, encoding in enumerate(encodings):
            length = len(encoding.ids)
            arrays["input_ids"][row, :length] = encoding.ids
            arrays["token_type_ids"][row, :length] = encoding.type_ids
            arrays["attention_mask"][row, :length] = 1
        return arrays

    def similarity(self, embeddings1: Any, embeddings2: Any) -> np.ndarray:
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
        check_choice(self.similarity_fn_name, "similarity_fn_name", SIMILARITIES)
        try:
            a, b = (np.atleast_2d(np.asarray(e, np.float32)) for e in (embeddings1, embeddings2))
        except (ValueError, TypeError, OverflowError) as error:  # such as rows of different lengths
            raise InputError(f"embeddings: expected two arrays (N, dim) of numbers, got others: {error}") from None
        if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
            raise InputError(f"embeddings: expected two arrays (N, dim) of one width, got {a.shape} and {b.shape}")
        if self.similarity_fn_name == "cosine":
            return normalize(a) @ normalize(b).T
        if self.similarity_fn_name == "dot":
            return a @ b.T
        order = 2 if self.similarity_fn_name == "euclidean" else 1
        return np.stack([-np.linalg.norm(b - row, ord=order, axis=1) for row in a]) if len(a) else a @ b.T

    def _options(self, batch_size, normalize_embeddings, prompt, prompt_name, on_overflow) -> dict[str, Any]:
        if prompt is None:
            name = self.default_prompt_name if prompt_name is None else prompt_name
            if name is not None and (not isinstance(name, str) or name not in self.prompts):
                raise InputError(
                    f"prompt_name: expected one of the model's prompts {shown(sorted(self.prompts))}, got "
                    f"{shown(name)}; or give the text itself as prompt"
                )
            prompt = self.prompts[name] if name is not None else ""
        if not isinstance(prompt, str):
            raise InputError(f"prompt: expected str, got {type(prompt).__name__}: {shown(prompt)}")
        on_overflow = self.on_overflow if on_overflow is None else on_overflow
        check_choice(on_overflow, "on_overflow", ON_OVERFLOW)
        return {
            "batch_size": check_batch_size(batch_size),
            "normalize_embeddings": normalize_embeddings,
            "prompt": prompt,
            "on_overflow": on_overflow,
        }

    def _iterate(self, sentences: Iterable[str], width: int, options: dict[str, Any]) -> Iterator[np.ndarray]:
        done = 0
        with _progress(0, False) as bar:
            for window in windows(sentences, options["batch_size"]):
                check_texts(window, "sentences")
                embeddings = np.empty((len(window), width), np.float32)
                self._encode_window(window, embeddings, done, bar, **options)
                done += len(window)
                yield from embeddings

    def _encode_window(
        self,
        texts: list[str],
        out: np.ndarray,
        first: int,
        bar: Any,
        batch_size: int,
        normalize_embeddings: bool,
        prompt: str,
        on_overflow: str,
    ) -> list[int]:
        """Fill `out` (N, dim); return how many tokens were cut off each text."""
        parts = self._parts
        prompted = [prompt + text for text in texts] if prompt else texts
        encodings, truncated = parts.tokenizer.encode(prompted, self.max_seq_length)
        check_overflow(truncated, self.max_seq_length, on_overflow, first)
        skipped = self._prompt_tokens(prompt)
        for indices, batch, hidden in hidden_states(parts.model, encodings, batch_size):
            embeddings = parts.pooling(hidden, batch, skipped)  # (T, H) -> (N, H)
            for module in parts.modules:
                embeddings = module(embeddings)
            embeddings = embeddings[:, : out.shape[1]]
            out[indices] = normalize(embeddings) if normalize_embeddings else embeddings
            bar.update(len(indices))
        return truncated

    def _prompt_tokens(self, prompt: str) -> int:
        """Tokens at the start of each text that pooling leaves out: [CLS] and the prompt, if the model says so."""
        if not prompt or self._parts.pooling.include_prompt:
            return 0
        encodings, _ = self._parts.tokenizer.encode([prompt], self.max_seq_length)
        return len(encodings[0].ids) - 1  # without [SEP]

    def _checked_width(self, truncate_dim: int | None) -> int:
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        if truncate_dim is None:
            return self.dimension
        return min(check_count(truncate_dim, "truncate_dim"), self.dimension)


def _progress(total: int, show: bool | None) -> Any:
    if not show:
        return _NoProgress()
    from tqdm import tqdm  # 50 milliseconds

    return tqdm(total=total, unit="text", desc="embed")


class _NoProgress(AbstractContextManager):
    def update(self, count: int) -> None:
        """Show nothing."""

    def __exit__(self, *_: object) -> None:
        pass
