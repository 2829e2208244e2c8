"""What is installed and what runs."""

from __future__ import annotations

import importlib.util
import platform
from typing import Any

import numpy as np

from . import cmm, threads
from .encoder import Model
from .precision import automatic

__all__ = ["info"]


def info(model: Model | None = None) -> dict[str, Any]:
    """Describe the installation, and how a model runs on it.

    Parameters
    ----------
    model : Model, optional
        What `ufbert.load` gave.

    Returns
    -------
    dict
        ``version``; ``kernel``, "cython" or "numpy"; ``instruction_set`` in use and ``instruction_sets`` that may be
        chosen with ``UFBERT_ISA``; ``threads``, what a call uses by default, and ``cpus``, what the process may use;
        ``openmp``, None, for the kernels have threads of their own; ``blas``, what NumPy multiplies matrices with;
        versions of the libraries; ``weights``, the version of the bundled weights, or None; ``auto_dtype`` and
        ``auto_dtype_fff``, what ``dtype="auto"`` is here for dense models and for models with trees, and the reasons.
        With a model, ``id``, the sha256 of its weights; ``dtype``, and ``dtype_reason``, why it is that;
        ``encoder_layers``, how many there are; ``fused_layers``, how many of them are one kernel call; ``not_fused``,
        why the others run in parts.
    """
    from importlib import metadata  # slow to import, and rarely wanted

    dense, trees = automatic("dense"), automatic("fff")
    compiled = cmm.supported_isas() != ["numpy"]
    return {
        "version": metadata.version("ufbert"),
        "kernel": "cython" if compiled else "numpy",
        "instruction_set": cmm.active_isa(),
        "instruction_sets": cmm.supported_isas(),
        "threads": threads.get_num_threads(),
        "cpus": threads.available_cpus(),
        "openmp": cmm.openmp_version(),
        "blas": _blas(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tokenizers": metadata.version("tokenizers"),
        "safetensors": metadata.version("safetensors"),
        "weights": _weights(),
        "auto_dtype": dense.dtype,
        "auto_dtype_reason": dense.reason,
        "auto_dtype_fff": trees.dtype,
        "auto_dtype_fff_reason": trees.reason,
    } | ({} if model is None else _layers(model))


def _weights() -> str | None:
    if importlib.util.find_spec("ufbert_weights") is None:
        return None
    import ufbert_weights

    return str(getattr(ufbert_weights, "__version__", "0.1"))  # several packages may share the folder


def _layers(model: Model) -> dict[str, Any]:
    layers = model.encoder.layers
    return {
        "id": model.id,
        "dtype": model.precision.dtype,
        "dtype_reason": model.precision.reason,
        "encoder_layers": len(layers),
        "fused_layers": sum(layer.fused is not None for layer in layers),
        "not_fused": sorted({layer.not_fused for layer in layers if layer.fused is None}),
    }


def _blas() -> str:
    try:
        build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # NumPy 1.25 and later
        return " ".join(str(build[key]) for key in ("name", "version") if build.get(key))
    except (TypeError, KeyError):
        return "unknown"
