"""Write a model folder anew with its weights in another dtype."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np

from . import checks
from .checkpoint.families import retyped
from .checkpoint.folder import ModelFolder
from .checkpoint.pack import load_model
from .checkpoint.sentence import load_sentence_model
from .checkpoint.tensors import SCALE, Stored, Tensor, narrow_bfloat16
from .checkpoint.writing import new_folder
from .errors import CheckpointError
from .int8 import quantize

__all__ = ["DTYPES", "convert"]

DTYPES = ("float32", "float16", "bfloat16", "int8")


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], dtype: str = "float16") -> Path:
    """Copy a model folder, its weights in one safetensors file of `dtype`.

    Parameters
    ----------
    source : str or path
        A model folder, plain or of sentence-transformers. Its weights may be torch's ``pytorch_model.bin``: its
        tensors are read, and nothing else in it.
    target : str or path
        A folder that does not exist yet, or is empty; it appears when it is complete.
    dtype : {"float32", "float16", "bfloat16", "int8"}
        Of all floating-point tensors; others, such as position numbers, are copied. "int8": embeddings and the weights
        of linear layers and trees have 8 bits and a float32 factor for each row; all else is float32 (in modules of
        sentence-transformers float16). Only this package reads such a folder; its format is in docs/format.md.

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
    folder = ModelFolder(source, pickled=True)
    checks.choice(dtype, "dtype", DTYPES)
    _load(folder)  # a model that this package cannot read is not worth having
    transformer = folder.transformer()
    config = retyped(transformer.read_json("config.json"), in_8_bits=dtype == "int8")
    tensors = transformer.tensors().encoded(partial(_encode, dtype=dtype))
    with new_folder(target) as complete:
        others = "float16" if dtype == "int8" else dtype
        folder.copy_to(complete, tensors, config, encode=partial(_encode, dtype=others))
        _load(ModelFolder(complete))
    return Path(target)


def _load(folder: ModelFolder) -> None:
    """Load a model folder as a trial."""
    if folder.pooling():
        load_sentence_model(folder)
    else:
        load_model(folder)


def _encode(tensor: Tensor, dtype: str) -> Stored:
    """A tensor in its new dtype."""
    if not tensor.is_floating:
        return tensor.stored()
    values = tensor.float32()
    if dtype == "int8" and values.ndim == 2 and tensor.name.endswith(".weight"):
        return _in_8_bits(tensor, values)
    if dtype == "bfloat16":
        return {tensor.name: ("BF16", narrow_bfloat16(values))}
    if dtype == "float16":
        return {tensor.name: ("F16", tensor.narrowed(values, np.float16))}
    return {tensor.name: ("F32", values)}


def _in_8_bits(tensor: Tensor, values: np.ndarray) -> Stored:
    if tensor.scale is not None:
        return tensor.stored()
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name}: expected finite values, found NaN or infinity; train anew"
        )
    matrix = quantize(values)
    return {tensor.name: ("I8", matrix.values), tensor.name + SCALE: ("F32", matrix.scale)}
