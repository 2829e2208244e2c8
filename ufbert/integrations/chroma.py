"""Chroma: an embedding function, which a collection stores by its settings.

>>> from ufbert.integrations.chroma import UfbertEmbeddingFunction
>>> client.create_collection("notes", embedding_function=UfbertEmbeddingFunction())  # doctest: +SKIP

Import this module also before a stored collection is opened, so that Chroma knows the function by its name.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, shown
from .adapter import Adapter, missing

try:
    from chromadb.api.types import Documents, EmbeddingFunction
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise missing("chromadb", error) from None

__all__ = ["UfbertEmbeddingFunction"]


@register_embedding_function
class UfbertEmbeddingFunction(Adapter, EmbeddingFunction[Documents]):
    """Embeds documents and queries; the parameters are those of `Adapter`."""

    def __call__(self, input: Documents) -> list[NDArray[np.float32]]:
        """Embed texts that are sought: (dim,) arrays."""
        return list(self.documents(input))

    def embed_query(self, input: Documents) -> list[NDArray[np.float32]]:
        """Embed texts that seek others: (dim,) arrays."""
        return list(self.queries(input))

    @staticmethod
    def name() -> str:
        """Name in stored collections."""
        return "ufbert"

    def default_space(self) -> str:
        """Distance of a collection that names none."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """Return the settings, which a collection stores."""
        return self.settings()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> UfbertEmbeddingFunction:
        """Make the function that `get_config` told of."""
        UfbertEmbeddingFunction.validate_config(config)
        return UfbertEmbeddingFunction(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse settings that this version does not know.

        Raises
        ------
        InputError
            With their names.
        """
        unknown = sorted(config.keys() - {field.name for field in fields(Adapter)})
        if unknown:
            raise InputError(f"settings: expected those of ufbert's Adapter, got {shown(unknown)} too")

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model or width for a collection that has embeddings already.

        Raises
        ------
        InputError
            If embeddings would not be comparable with the stored ones.
        """
        self.validate_config(new_config)
        for name in ("model", "truncate_dim"):
            old, new = old_config.get(name), new_config.get(name)
            if old != new:
                raise InputError(
                    f"{name}: expected {shown(old)}, with which the collection's embeddings were made, got "
                    f"{shown(new)}; make a new collection"
                )
