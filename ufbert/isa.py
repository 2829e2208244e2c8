"""Which compiled kernels run: the extension modules, and the instruction set that they use."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from . import checks
from .errors import InputError

__all__ = ["active_isa", "compiled_isas", "dense_kernels", "fff_kernels", "openmp_version", "supported_isas", "use_isa"]


def _extension(name: str) -> Any:  # noqa: ANN401 (a module)
    try:
        return import_module(f".{name}", __package__)
    except ImportError:  # built with UFBERT_NO_EXTENSION=1, or for another platform
        return None


fff_kernels = _extension("_cmm")
"""The compiled FFF kernels, typed and unchecked; None where they are not built."""
dense_kernels = _extension("_dense")
"""The compiled kernels of linear layers, attention, norms and whole encoder layers; None where they are not built."""

OLD_NAMES = {"scalar": "generic"}  # that are still understood


def compiled_isas() -> list[str]:
    """Name the instruction sets that this build has, best last, whether or not this machine runs them."""
    return list(fff_kernels.compiled_isas()) if fff_kernels else ["numpy"]


def supported_isas() -> list[str]:
    """Name the instruction sets that this build has and this machine runs, best last; ``["numpy"]`` without a build."""
    return list(fff_kernels.supported_isas()) if fff_kernels else ["numpy"]


def active_isa() -> str:
    """Name the instruction set in use."""
    return str(fff_kernels.active_isa()) if fff_kernels else "numpy"


def openmp_version() -> int | None:
    """Give None: the kernels have threads of their own, and OpenMP no more. Kept for code that asks."""
    return None


def use_isa(name: str) -> None:
    """Choose the instruction set by name, as ``UFBERT_ISA`` does at import.

    Do not call it while another thread runs a kernel. Linear layers that are packed already stay on the instruction
    set that they were packed for: each has its own layout of the weights.

    Raises
    ------
    InputError
        If this build or this machine does not have it.
    """
    name = OLD_NAMES.get(name, name)
    if name not in supported_isas():
        expected = f"one of {', '.join(supported_isas())} on this machine"
        raise checks.refusal("instruction set (UFBERT_ISA)", expected, name, "choose one of these or unset it")
    if fff_kernels:
        fff_kernels.use_isa(name)


if _name := os.environ.get("UFBERT_ISA"):
    try:
        use_isa(_name)
    except InputError as error:
        if os.path.basename(sys.argv[0]) in ("ufbert", "ufbert.exe", "-m"):  # the command, which has not begun yet
            raise SystemExit(f"ufbert: error: {error}") from None
        raise
