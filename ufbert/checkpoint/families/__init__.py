"""The architectures: how each writes ``config.json`` and names its tensors. Nothing else knows a checkpoint's words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from ...config import ModelConfig
from ...errors import CheckpointError, shown
from ..options import Options
from .family import Family

__all__ = ["IN_8_BITS", "Family", "family_of", "find_family", "parse_config", "typed"]

# model_type of config.json: the module of this folder that knows it. A new architecture is a module and a line.
MODULES = {
    "bert": "bert",
    "camembert": "camembert",
    "crammedBERT": "crammed",
    "distilbert": "distilbert",
    "electra": "electra",
    "roberta": "roberta",
    "ufbert": "ufbert",
    "xlm-roberta": "xlm_roberta",
}

IN_8_BITS = "ufbert-"
"""Before the ``model_type`` of a folder with weights in 8 bits: other programs must not take them for floats."""


@cache
def family_of(name: str) -> Family:
    """Return a family by the name that `ModelConfig.family` has."""
    family: Family = import_module(f".{name}", __name__).FAMILY
    return family


def find_family(data: Mapping[str, Any]) -> Family:
    """Return the family of a ``config.json``, by its ``model_type`` or else its architecture.

    Raises
    ------
    CheckpointError
        If there is none.
    """
    model_type, architecture = data.get("model_type"), _architecture(Options(data, "config.json"))
    if isinstance(model_type, str) and model_type.removeprefix(IN_8_BITS) in MODULES:
        return family_of(MODULES[model_type.removeprefix(IN_8_BITS)])
    if model_type is None:
        for family in map(family_of, MODULES.values()):
            if architecture in family.tasks:
                return family
    raise CheckpointError(
        f"config.json: model_type: expected one of {', '.join(MODULES)}, found {shown(model_type)} "
        f"(architecture {architecture}); ufbert supports no other architectures"
    )


def parse_config(data: Mapping[str, Any], encoder_only: bool = False, task: str | None = None) -> ModelConfig:
    """Read a ``config.json``.

    Parameters
    ----------
    data : mapping
        The parsed file.
    encoder_only : bool
        Take any known architecture as its bare encoder.
    task : str, optional
        What a file without ``architectures`` is taken for; by default a bare encoder.

    Raises
    ------
    CheckpointError
        If the architecture or an option is unknown, or a value is out of its range.
    """
    top, family = Options(data, "config.json"), find_family(data)
    architecture = _architecture(top)
    known = [*family.tasks, *family.encoders] if encoder_only else [*family.tasks]
    if architecture is None:
        return family.read(top, "base" if encoder_only or task is None else task)
    if architecture not in known:
        raise top.error("architectures", "one of " + ", ".join(known), architecture)
    return family.read(top, "base" if encoder_only else family.tasks[architecture])


def _architecture(top: Options) -> str | None:
    names = top.get("architectures", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise top.error("architectures", "a list of names", names)
    return names[0] if names else None


def typed(data: Mapping[str, Any], in_8_bits: bool) -> dict[str, Any]:
    """Return a ``config.json`` with the ``model_type`` that it has with weights in 8 bits, or in more."""
    family = find_family(data)
    names = [name for name, module in MODULES.items() if family_of(module) is family]
    plain = str(data.get("model_type", names[0])).removeprefix(IN_8_BITS)
    is_ours = plain in ("ufbert", "crammedBERT")  # which no other program reads by itself
    return {**data, "model_type": IN_8_BITS + plain if in_8_bits and not is_ours else plain}
