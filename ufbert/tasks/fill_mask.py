"""Masked language modelling: what stands at the mask."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..activations import softmax
from ..errors import CheckpointError, InputError
from .load import load_parts, top
from .run import check_batch_size, check_count, check_overflow, check_texts, hidden_states

__all__ = ["FillMask"]


class FillMask:
    """Fills the masks of texts, with the results of transformers' fill-mask pipeline.

    Parameters
    ----------
    folder : str or path
        A folder with a masked-LM model and its tokenizer.
    dtype : {"float32", "bfloat16", "int8"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or its tokenizer has no mask token.
    """

    def __init__(self, folder: str | os.PathLike[str], dtype: str = "float32") -> None:
        self._model, self._head, self._tokenizer = load_parts(folder, "masked-lm", dtype)
        self._mask_id = self._tokenizer.token_id("mask_token")
        if self._mask_id is None:
            raise CheckpointError(f"{folder}: expected a tokenizer with a mask token, found none; name it mask_token")

    @property
    def mask_token(self) -> str:
        """Text of the mask, such as "[MASK]"."""
        return self._tokenizer.special_tokens["mask_token"]

    def __call__(
        self, texts: str | Sequence[str], top_k: int = 5, batch_size: int = 32, on_overflow: str = "truncate"
    ) -> list[Any]:
        """Rank the tokens that may stand at each mask.

        Parameters
        ----------
        texts : str or sequence of str
            Each with at least one `mask_token`.
        top_k : int
            How many tokens to give.
        batch_size : int
            Texts in one pass at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with texts that are too long for the model.

        Returns
        -------
        list
            For a text with one mask a list of ``{score, token, token_str, sequence}``, best first; with several masks
            a list of such lists, whose sequences keep the other masks; for a sequence of texts a list of those.

        Raises
        ------
        InputError
            If a text has no mask (or it was cut off), or an argument does not fit.
        """
        top_k, batch_size = check_count(top_k, "top_k"), check_batch_size(batch_size)
        single = isinstance(texts, str)
        encodings, truncated = self._tokenizer.encode(check_texts(texts, "texts"))
        check_overflow(truncated, self._tokenizer.max_length, on_overflow)
        masks = [[i for i, token in enumerate(e.ids) if token == self._mask_id] for e in encodings]
        for index, positions in enumerate(masks):
            if not positions:
                raise InputError(
                    f"text {index}: expected at least one {self.mask_token} in the first {self._tokenizer.max_length} "
                    "tokens, found none"
                )
        results: list[Any] = [None] * len(encodings)
        for indices, batch, hidden in hidden_states(self._model, encodings, batch_size):
            rows = [start + at for start, i in zip(batch.cu_seqlens, indices, strict=False) for at in masks[i]]
            probabilities = iter(softmax(self._head(hidden[rows])))  # (M, V), at the masks only
            for index in indices:
                ids = encodings[index].ids
                alone = len(masks[index]) == 1
                filled = [self._fill(ids, at, next(probabilities), top_k, alone) for at in masks[index]]
                results[index] = filled[0] if alone else filled
        return results[0] if single else results

    def _fill(
        self, ids: list[int], position: int, probabilities: Any, top_k: int, skip_special_tokens: bool
    ) -> list[dict[str, Any]]:
        filled = []
        for token in top(probabilities, top_k).tolist():
            whole = [*ids[:position], token, *ids[position + 1 :]]
            filled.append(
                {
                    "score": float(probabilities[token]),
                    "token": token,
                    "token_str": self._tokenizer.decode([token], False),
                    "sequence": self._tokenizer.decode(whole, skip_special_tokens),
                }
            )
        return filled
