"""What the calls of a sentence encoder go by: prompts, width, and how embeddings are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..checkpoint.sentence import SIMILARITIES, SentenceSettings
from ..errors import InputError, shown
from ..text_model import TextModel
from . import similarity
from .habits import as_tensor, is_tensor

__all__ = ["EncoderSettings", "Limited", "prompt_text"]


def prompt_text(prompts: Mapping[str, str], default: str | None, prompt: str | None, prompt_name: str | None) -> str:
    """Return what to put before each text: a prompt as it is given, or by its name, or the default.

    Raises
    ------
    InputError
        If there is no prompt of that name, or `prompt` is no str.
    """
    if prompt is None:
        name = default if prompt_name is None else prompt_name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in prompts:
            raise InputError(
                f"prompt_name: expected one of the model's prompts {shown(sorted(prompts))}, got "
                f"{shown(name)}; or give the text itself as prompt"
            )
        return prompts[name]
    if not isinstance(prompt, str):
        raise InputError(f"prompt: expected str, got {type(prompt).__name__}: {shown(prompt)}")
    return prompt


class Limited:
    """An encoder of texts whose length a user may set."""

    _texts: TextModel

    @property
    def max_seq_length(self) -> int:
        """Tokens a text may have, special tokens included; longer ones are cut."""
        return self._texts.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._texts = self._texts.with_max_length(value)


class EncoderSettings(ABC):
    """Settings that a folder has, and a user may change.

    Attributes
    ----------
    prompts : dict of str to str
        By name; "query" and "document" are always there, and may be empty.
    default_prompt_name : str or None
        The prompt of calls that name none.
    similarity_fn_name : {"cosine", "dot", "euclidean", "manhattan"}
    truncate_dim : int or None
        Dimensions to keep.
    """

    prompts: dict[str, str]
    default_prompt_name: str | None
    similarity_fn_name: str
    truncate_dim: int | None

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Width of an embedding of the model; `truncate_dim` may keep less of it."""

    def _settle(
        self, folder: SentenceSettings, prompts: object, default_prompt_name: object, similarity_fn_name: object,
        truncate_dim: object,
    ) -> None:  # fmt: skip
        """Take the folder's settings, and what the user gave instead."""
        self.prompts = {"query": "", "document": ""} | folder.prompts | _checked_prompts(prompts)
        self.default_prompt_name = folder.default_prompt_name
        if default_prompt_name is not None:
            self.default_prompt_name = checks.choice(default_prompt_name, "default_prompt_name", self.prompts)
        self.similarity_fn_name = folder.similarity_fn_name
        if similarity_fn_name is not None:
            self.similarity_fn_name = _similarity(similarity_fn_name)
        self.truncate_dim = folder.truncate_dim
        if truncate_dim is not None:
            self.truncate_dim = checks.integer(truncate_dim, "truncate_dim", 1)

    def _as_settings(self) -> SentenceSettings:
        """Return what a folder would say of them."""
        name = _similarity(self.similarity_fn_name)
        return SentenceSettings(dict(self.prompts), self.default_prompt_name, name, self.truncate_dim)

    def get_embedding_dimension(self) -> int:
        """Width of what `encode` gives, by its name in sentence-transformers."""
        return self._width(None)

    def get_sentence_embedding_dimension(self) -> int:
        """Width of what `encode` gives, by its older name in sentence-transformers."""
        return self._width(None)

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """Similarity of every embedding to every other one, by the model's `similarity_fn_name`.

        Parameters
        ----------
        embeddings1, embeddings2 : (N, dim), (M, dim) arrays, or (dim,) for one

        Returns
        -------
        (N, M) float32 array
            Cosine, dot product, or the negative Euclidean or Manhattan distance; of PyTorch's tensors a tensor.

        Raises
        ------
        InputError
            If the arguments are not such arrays.
        """
        scores = similarity.similarity(embeddings1, embeddings2, _similarity(self.similarity_fn_name))
        return as_tensor(scores) if is_tensor(embeddings1) else scores

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> NDArray[np.float32]:
        """Similarity of embeddings in the same place: as `similarity`, (N, dim) and (N, dim) -> (N,)."""
        scores = similarity.pairwise_similarity(embeddings1, embeddings2, _similarity(self.similarity_fn_name))
        return as_tensor(scores) if is_tensor(embeddings1) else scores

    def _prompted(self, options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        """Add the first of the prompts that there is, where no other is given."""
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options["prompt_name"] = next((name for name in names if name in self.prompts), None)
        return options

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        return prompt_text(self.prompts, self.default_prompt_name, prompt, prompt_name)

    def _width(self, truncate_dim: int | None) -> int:
        truncate_dim = self.truncate_dim if truncate_dim is None else truncate_dim
        if truncate_dim is None:
            return self.dimension
        return min(checks.integer(truncate_dim, "truncate_dim", 1), self.dimension)


def _similarity(name: object) -> str:
    """Return the name of a similarity, perhaps of sentence-transformers' enumeration."""
    return checks.choice(getattr(name, "value", name), "similarity_fn_name", SIMILARITIES)


def _checked_prompts(prompts: object) -> dict[str, str]:
    if prompts is None:
        return {}
    if not isinstance(prompts, Mapping) or not all(isinstance(text, str) for pair in prompts.items() for text in pair):
        raise InputError(f"prompts: expected names with their texts, got {shown(prompts)}")
    return dict(prompts)
