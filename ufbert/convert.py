"""Write a model folder anew with its weights in another dtype."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from .checkpoint.build import load
from .checkpoint.files import WEIGHTS, ModelFolder
from .checkpoint.tensors import Tensor, Tensors, narrow_bfloat16, write_tensors
from .errors import CheckpointError, InputError

__all__ = ["DTYPES", "convert"]

DTYPES = ("float32", "float16", "bfloat16")
# What a model folder and the module folders inside it are made of; pickles, code and other formats stay behind.
KEPT = (
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "README.md",
    "LICENSE",
)


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str], dtype: str = "float16") -> Path:
    """Copy a model folder, its weights in one safetensors file of `dtype`.

    Parameters
    ----------
    source : str or path
        A model folder, plain or of sentence-transformers.
    target : str or path
        A folder that does not exist yet; it appears when it is complete.
    dtype : {"float32", "float16", "bfloat16"}
        Of all floating-point tensors; others, such as position numbers, are copied.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    InputError
        If `target` exists or `dtype` is unknown.
    CheckpointError
        If `source` is not usable, or a value does not fit into float16.
    """
    folder, target = ModelFolder(source), Path(target)
    if dtype not in DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if target.exists():
        raise InputError(f"{target}: expected a name that is free, found something there; remove it or choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        complete = Path(scratch, "model")
        _convert_folder(folder, complete, dtype)
        load(complete)  # a model that this package cannot read is not worth having
        complete.rename(target)
    return target


def _convert_folder(folder: ModelFolder, target: Path, dtype: str) -> None:
    target.mkdir()
    for name in KEPT:
        if folder.has(name):
            shutil.copyfile(folder.path / name, target / name)
    if any(folder.path.glob("*.safetensors")):
        tensors = Tensors(folder.weight_files())
        encoded = {name: _encode(tensors.tensor(name), dtype) for name in sorted(tensors.names())}
        write_tensors(target / WEIGHTS, encoded)
    for inner in sorted(path for path in folder.path.iterdir() if path.is_dir() and (path / "config.json").is_file()):
        _convert_folder(ModelFolder(inner), target / inner.name, dtype)


def _encode(tensor: Tensor, dtype: str) -> tuple[str, np.ndarray]:
    """A tensor's new dtype and values."""
    if not tensor.is_floating:
        return tensor.dtype, tensor.array()
    values = tensor.float32()
    if dtype == "float32":
        return "F32", values
    if dtype == "bfloat16":
        return "BF16", narrow_bfloat16(values)
    with np.errstate(over="ignore"):
        narrowed = values.astype(np.float16)
    if np.isinf(narrowed).any() and np.isfinite(values).all():
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name}: expected values up to 65504 for float16, found "
            f"{np.abs(values).max():g}; convert to bfloat16"
        )
    return "F16", narrowed
