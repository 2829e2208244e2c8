"""Masked language modelling: what stands at the mask."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..activations import softmax
from ..checkpoint.folder import ModelFolder
from ..errors import CheckpointError, InputError, shown
from ..heads import MaskedLMHead
from ..text_model import ON_OVERFLOW, WINDOW, Window, callers_level, check_batch_size, check_texts, each_text
from .load import load_texts, top

__all__ = ["Fill", "FillMask"]

MASKS = 256  # scored together: memory holds their scores of the whole vocabulary


class Fill(TypedDict):
    """A token for a mask: its probability, its id, its text, and the text that it completes."""

    score: float
    token: int
    token_str: str
    sequence: str


class FillMask:
    """Fills the masks of texts, with the results of transformers' fill-mask pipeline.

    Parameters
    ----------
    folder : str or path
        A folder with a masked-LM model and its tokenizer.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or its tokenizer has no mask token.
    """

    def __init__(self, folder: str | os.PathLike[str], dtype: str = "float32") -> None:
        self._texts = load_texts(ModelFolder(folder), "masked-lm", dtype)
        self._mask_id = self._texts.tokenizer.token_id("mask_token")
        if self._mask_id is None:
            raise CheckpointError(
                f"{folder}: expected a tokenizer with a mask token, found one without; name it mask_token"
            )

    @property
    def mask_token(self) -> str:
        """Text of the mask, such as "[MASK]"."""
        return self._texts.tokenizer.special_tokens["mask_token"]

    def __call__(
        self,
        texts: str | Iterable[str],
        top_k: int = 5,
        batch_size: int = 32,
        on_overflow: str = "truncate",
        targets: str | Iterable[str] | None = None,
    ) -> list[Fill] | list[list[Fill]] | list[list[Fill] | list[list[Fill]]]:
        """Rank the tokens that may stand at each mask.

        Parameters
        ----------
        texts : str or iterable of str
            Each with at least one `mask_token`.
        top_k : int
            How many tokens to give.
        batch_size : int
            Texts in one forward pass at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with texts that are too long for the model.
        targets : str or iterable of str, optional
            Rank only these tokens; their probabilities stay those among the whole vocabulary. A word that the
            vocabulary does not have stands for its first token, with a warning that names both.

        Returns
        -------
        list
            For a text with one mask a list of ``{score, token, token_str, sequence}``, best first; with several masks
            a list of such lists, whose sequences keep the other masks; for an iterable of texts a list of those.

        Raises
        ------
        InputError
            If a text has no mask (or it was cut off), or an argument does not fit.
        """
        inputs = [texts] if isinstance(texts, str) else texts
        results = list(self._results(inputs, top_k, batch_size, on_overflow, targets, WINDOW))
        return results[0] if isinstance(texts, str) else results

    def stream(
        self,
        texts: Iterable[str],
        top_k: int = 5,
        batch_size: int = 32,
        on_overflow: str = "truncate",
        targets: str | Iterable[str] | None = None,
    ) -> Iterator[list[Fill] | list[list[Fill]]]:
        """Fill the masks of any number of texts, holding `batch_size` of them at a time.

        Parameters are those of a call; memory does not grow with the number of texts.

        Yields
        ------
        list
            One for each text, in order.
        """
        return self._results(texts, top_k, batch_size, on_overflow, targets, 0)

    def _results(
        self, texts: Iterable[str], top_k: int, batch_size: int, on_overflow: str,
        targets: str | Iterable[str] | None, window: int,
    ) -> Iterator[list[Fill] | list[list[Fill]]]:  # fmt: skip
        """Check the arguments; return the results, read in windows of at least `window` texts."""
        top_k, batch_size = checks.integer(top_k, "top_k", 1), check_batch_size(batch_size)
        checks.choice(on_overflow, "on_overflow", ON_OVERFLOW)
        windows = self._texts.windows(each_text(texts, "texts"), "texts", max(window, batch_size), on_overflow)
        wanted = None if targets is None else self._targets(check_texts(targets, "targets"))
        return (fills for window in windows for fills in self._fill_window(window, top_k, batch_size, wanted))

    def _targets(self, targets: list[str]) -> NDArray[np.int64]:
        """Ids of the tokens that are ranked, each once, in the order given."""
        tokenizer, ids = self._texts.tokenizer, []
        for target in targets:
            token = tokenizer.backend.token_to_id(target)
            if token is None:
                (pieces,) = tokenizer.pieces([target], offsets=False)
                if not pieces.ids:
                    warnings.warn(f"targets: {shown(target)} has no token; it is left out", stacklevel=callers_level())
                    continue
                token = pieces.ids[0]
                warnings.warn(
                    f"targets: the vocabulary has no {shown(target)}; its first token {shown(pieces.tokens[0])} stands "
                    "for it",
                    stacklevel=callers_level(),
                )
            ids.append(token)
        if not ids:
            raise InputError(f"targets: expected at least one token of the vocabulary, got {shown(targets)}")
        return np.array(list(dict.fromkeys(ids)), np.int64)

    def _fill_window(
        self, window: Window, top_k: int, batch_size: int, wanted: NDArray[np.int64] | None
    ) -> list[list[Fill] | list[list[Fill]]]:
        masks = [self._masks(e.ids, window.first + index) for index, e in enumerate(window.encodings)]
        fills: list[list[list[Fill]]] = [[] for _ in masks]
        for run in self._texts.run(window.encodings, batch_size):
            starts = run.batch.cu_seqlens.tolist()
            places = [(start + at, index, at) for start, index in zip(starts, run.indices, strict=False)
                      for at in masks[index]]  # fmt: skip
            for part in (places[start : start + MASKS] for start in range(0, len(places), MASKS)):
                probabilities = self._probabilities(run.hidden[[row for row, _, _ in part]])
                for (_, index, at), row in zip(part, probabilities, strict=True):
                    alone = len(masks[index]) == 1
                    best = top(row, top_k) if wanted is None else wanted[top(row[wanted], top_k)]
                    fills[index].append(self._fill(window.encodings[index].ids, at, row, best, alone))
        return [filled[0] if len(filled) == 1 else filled for filled in fills]

    def _masks(self, ids: list[int], number: int) -> list[int]:
        """Find the masks of a text."""
        found = [index for index, token in enumerate(ids) if token == self._mask_id]
        if not found:
            raise InputError(
                f"text {number}: expected at least one {self.mask_token} in the first {self._texts.max_length} tokens, "
                "found no mask"
            )
        return found

    def _probabilities(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        head = self._texts.model.head
        assert isinstance(head, MaskedLMHead)
        return softmax(head(hidden))  # (M, H) -> (M, V)

    def _fill(
        self, ids: list[int], position: int, probabilities: NDArray[np.float32], best: NDArray[np.int64],
        skip_special_tokens: bool,
    ) -> list[Fill]:  # fmt: skip
        decode = self._texts.tokenizer.decode
        return [
            {
                "score": float(probabilities[token]),
                "token": token,
                "token_str": decode([token], False),
                "sequence": decode([*ids[:position], token, *ids[position + 1 :]], skip_special_tokens),
            }
            for token in best.tolist()
        ]
