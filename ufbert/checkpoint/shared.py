"""Tensors of a model folder that shares its encoder with another one, its ``ufbert_base_model``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from . import names
from .folder import ModelFolder
from .tensors import Tensors

__all__ = ["open_tensors"]

FAMILIES = {"crammedBERT": "crammed"}  # by model_type; all others are BERT's


def open_tensors(folder: ModelFolder) -> Tensors:
    """Open a folder's weights, and what it does not have itself from the encoder of its base model.

    A classifier of which only the head and the last layers were trained so is a file of a few megabytes.

    Raises
    ------
    CheckpointError
        If a file is faulty, or the base model shares an encoder in its turn.
    """
    tensors, base = Tensors(folder.weight_files()), folder.base()
    if base is None:
        return tensors
    config: Mapping[str, Any] = base.read_json("config.json")
    if base.base() is not None:
        raise CheckpointError(
            f"{base.path / 'config.json'}: expected all weights in the base model of {folder.path}, "
            "found one that has a base model itself; name that one"
        )
    family = FAMILIES.get(str(config.get("model_type")), "bert")
    prefix, found = names.PREFIX[family], Tensors(base.weight_files())
    if names.ENCODER[family]["word_embeddings"] in found:  # an encoder without a head has bare names
        tensors.fill_from(found, {name: prefix + name for name in found.names()})
    else:
        tensors.fill_from(found, {name: name for name in found.names() if name.startswith(prefix)})
    return tensors
