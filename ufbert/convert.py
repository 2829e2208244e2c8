"""Write a model folder anew with its weights in another dtype."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from .checkpoint.folder import ModelFolder
from .checkpoint.pack import load
from .checkpoint.sentence import load_sentence_model
from .checkpoint.tensors import Tensor, narrow_bfloat16
from .checkpoint.writing import new_folder
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
    _load(folder)  # a model that this package cannot read is not worth having
    tensors = folder.transformer().tensors()
    transformer = {name: _encode(tensors.tensor(name), dtype) for name in sorted(tensors.names())}
    with new_folder(target) as complete:
        folder.copy_to(complete, transformer, encode=partial(_encode, dtype=dtype))
        _load(ModelFolder(complete))
    return Path(target)


def _load(folder: ModelFolder) -> None:
    """Load a model folder as a trial."""
    if folder.pooling():
        load_sentence_model(folder)
    else:
        load(folder.path)


def _encode(tensor: Tensor, dtype: str) -> tuple[str, np.ndarray]:
    """A tensor's new dtype and values."""
    if not tensor.is_floating:
        return tensor.stored()
    values = tensor.float32()
    if dtype == "float32":
        return "F32", values
    if dtype == "bfloat16":
        return "BF16", narrow_bfloat16(values)
    return "F16", tensor.narrowed(values, np.float16)
