"""Write a model folder anew with its weights in another dtype."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .checkpoint.build import load
from .checkpoint.files import WEIGHTS, ModelFolder
from .checkpoint.sentence import list_modules, load_sentence_model
from .checkpoint.tensors import Tensor, Tensors, narrow_bfloat16, write_tensors
from .checkpoint.writing import copy_settings, new_folder
from .errors import InputError, shown

__all__ = ["DTYPES", "convert"]

DTYPES = ("float32", "float16", "bfloat16")


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], dtype: str = "float16") -> Path:
    """Copy a model folder, its weights in one safetensors file of `dtype`.

    Parameters
    ----------
    source : str or path
        A model folder, plain or of sentence-transformers.
    target : str or path
        A folder that does not exist yet, or is empty; it appears when it is complete.
    dtype : {"float32", "float16", "bfloat16"}
        Of all floating-point tensors; others, such as position numbers, are copied.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    InputError
        If `target` is taken or is no path, or `dtype` is unknown.
    CheckpointError
        If `source` is not usable, or a value does not fit into float16.
    """
    folder = ModelFolder(source)
    if dtype not in DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {shown(dtype)}")
    modules = _load(folder)  # a model that this package cannot read is not worth having
    with new_folder(target) as complete:
        copy_settings(folder, complete)
        for kind, path in modules:
            if kind != "Normalize":  # which has neither settings nor weights
                (complete / path).mkdir(parents=True, exist_ok=True)
                copy_settings(folder.subfolder(path), complete / path)
            if kind in ("Transformer", "Dense"):
                _convert_weights(folder.subfolder(path), complete / path, dtype)
        _load(ModelFolder(complete))
    return Path(target)


def _load(folder: ModelFolder) -> list[tuple[str, str]]:
    """Load a model folder as a trial; return kinds and paths of its modules, in a plain folder the model alone."""
    if folder.has("modules.json") or folder.has("1_Pooling/config.json"):
        load_sentence_model(folder)
        return list_modules(folder)
    load(folder.path)
    return [("Transformer", "")]


def _convert_weights(folder: ModelFolder, target: Path, dtype: str) -> None:
    tensors = Tensors(folder.weight_files())
    encoded = {name: _encode(tensors.tensor(name), dtype) for name in sorted(tensors.names())}
    write_tensors(target / WEIGHTS, encoded)


def _encode(tensor: Tensor, dtype: str) -> tuple[str, np.ndarray]:
    """A tensor's new dtype and values."""
    if not tensor.is_floating:
        return tensor.dtype, tensor.array()
    values = tensor.float32()
    if dtype == "float32":
        return "F32", values
    if dtype == "bfloat16":
        return "BF16", narrow_bfloat16(values)
    return "F16", tensor.narrowed(values, np.float16)
