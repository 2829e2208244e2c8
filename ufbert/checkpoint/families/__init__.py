"""The architectures: how each writes ``config.json`` and names its tensors. Nothing else knows a checkpoint's words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from ...config import ModelConfig
from ...errors import CheckpointError, shown
from ..options import Options
from .family import COLBERT, Family, Spelling

__all__ = [
    "COLBERT", "IN_8_BITS", "Family", "Spelling", "family_of", "find_family", "parse_config", "retyped", "rewritten",
]  # fmt: skip

# model_type of config.json: the module of this folder that knows it. A new architecture is a module and a line.
MODULES = {
    "bert": "bert",
    "camembert": "camembert",
    "crammedBERT": "crammed",
    "distilbert": "distilbert",
    "electra": "electra",
    "modernbert": "modernbert",
    "mpnet": "mpnet",
    "nomic_bert": "nomic_bert",
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
    return family_of(MODULES[_model_type(data)])


def _model_type(data: Mapping[str, Any]) -> str:
    """A key of `MODULES`."""
    model_type, architecture = data.get("model_type"), _architecture(Options(data, "config.json"))
    if isinstance(model_type, str) and model_type.removeprefix(IN_8_BITS) in MODULES:
        return model_type.removeprefix(IN_8_BITS)
    if model_type is None:
        for name, module in MODULES.items():
            if architecture in family_of(module).tasks:
                return name
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
    if architecture is None or architecture == COLBERT:
        return family.read(top, "base" if encoder_only or architecture or task is None else task)
    if architecture not in known:
        raise top.error("architectures", "one of " + ", ".join(known), architecture)
    return family.read(top, "base" if encoder_only else family.tasks[architecture])


def rewritten(data: Mapping[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Give the ``config.json`` of a model that was made from another one.

    Parameters
    ----------
    data : mapping
        The other one's. What it says of its architecture goes, all else stays.
    config : ModelConfig
        Of a family that can be written.
    """
    before, family = parse_config(data, encoder_only=True), family_of(config.family)
    former = family_of(before.family)
    if family.write is None or former.write is None:
        raise CheckpointError(f"config.json: expected a family that this package can write, got {config.family}")
    stale = {"num_labels", "_name_or_path", *former.write(before)}
    kept = {key: value for key, value in data.items() if key not in stale}
    if former.tokenizer != family.tokenizer and kept.get("tokenizer_class") is None:
        kept["tokenizer_class"] = former.tokenizer  # what the new family's files mean without a class is another
    return kept | family.write(config)


def _architecture(top: Options) -> str | None:
    names = top.get("architectures", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise top.error("architectures", "a list of names", names)
    return names[0] if names else None


def retyped(data: Mapping[str, Any], in_8_bits: bool) -> dict[str, Any]:
    """Return a ``config.json`` with the ``model_type`` that goes with weights in 8 bits, or with more."""
    model_type = _model_type(data)
    if in_8_bits and model_type not in ("ufbert", "crammedBERT"):  # which no other program takes for its own
        return {**data, "model_type": IN_8_BITS + model_type}
    return {**data, "model_type": model_type} if "model_type" in data else dict(data)
