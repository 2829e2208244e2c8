"""Write a model folder anew with its weights in another dtype."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from . import checks
from .checkpoint.families import family_of, retyped
from .checkpoint.folder import ModelFolder
from .checkpoint.pack import load_model
from .checkpoint.sentence import load_sentence_model
from .checkpoint.tensors import COLUMNS, SCALE, Stored, Tensor, Tensors, narrow_bfloat16
from .checkpoint.writing import new_folder
from .errors import CheckpointError
from .int8 import Int8Matrix, quantize, quantize_levelled

__all__ = ["DTYPES", "convert"]

DTYPES = ("float32", "float16", "bfloat16", "int8")
NOTHING: Mapping[str, bool] = {}


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
        of linear layers and trees have 8 bits, a factor for each row, and outputs of trees and positions one for each
        column too; all else is float32 (in modules of sentence-transformers float16). Only this package reads such a
        folder; its format is in docs/format.md.

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
    stored = transformer.tensors()
    levelled = _levelled(transformer, stored) if dtype == "int8" else {}
    tensors = stored.encoded(partial(_encode, dtype=dtype, levelled=levelled))
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


def _levelled(folder: ModelFolder, tensors: Tensors) -> dict[str, bool]:
    """Matrices a few of whose coordinates are much larger than the others; whether these are rows of the matrix.

    They get factors for both axes. Of trees, the outputs are the rows; of positions they are the columns.
    """
    config = folder.config(encoder_only=True)
    spelling = family_of(config.family).spelling(tensors)
    found = {spelling("position_embeddings.weight"): False} if "position_embeddings.weight" in spelling else {}
    if config.feed_forward == "fff":
        found |= {spelling("fff_out.weight", layer): True for layer in range(config.num_hidden_layers)}
    return found


def _encode(tensor: Tensor, dtype: str, levelled: Mapping[str, bool] = NOTHING) -> Stored:
    """A tensor in its new dtype."""
    if not tensor.is_floating:
        return tensor.stored()
    values = tensor.float32()
    if dtype == "int8" and values.ndim == 2 and tensor.name.endswith(".weight"):
        return _in_8_bits(tensor, values, levelled.get(tensor.name))
    if dtype == "bfloat16":
        return {tensor.name: ("BF16", narrow_bfloat16(values))}
    if dtype == "float16":
        return {tensor.name: ("F16", tensor.narrowed(values, np.float16))}
    return {tensor.name: ("F32", values)}


def _in_8_bits(tensor: Tensor, values: np.ndarray, rows_differ: bool | None) -> Stored:
    if tensor.scale is not None:
        return tensor.stored()
    if not np.isfinite(values).all():
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name}: expected finite values, found NaN or infinity; train anew"
        )
    if rows_differ is None:
        return _stored(tensor.name, quantize(values, short_factors=True))
    if rows_differ:
        return _stored(tensor.name, quantize_levelled(values.T).transposed())
    return _stored(tensor.name, quantize_levelled(values))


def _stored(name: str, matrix: Int8Matrix) -> Stored:
    found: Stored = {name: ("I8", matrix.values), name + SCALE: _factors(matrix.scale)}
    return found if matrix.columns is None else found | {name + COLUMNS: _factors(matrix.columns)}


def _factors(values: np.ndarray) -> tuple[str, np.ndarray]:
    """Factors in float16 where that loses nothing."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float16)
    return ("F16", short) if (short == values).all() else ("F32", values)
