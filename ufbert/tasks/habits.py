"""Arguments that people bring along from sentence-transformers: taken where they make sense, else refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from ..errors import InputError, shown

__all__ = [
    "CALLING", "LOADING", "Evaluations", "as_tensor", "check_alone", "check_device", "check_unused", "first_given",
    "is_tensor",
]  # fmt: skip

# What only one value of makes sense here, and the sentence for any other.
LOADING: dict[str, tuple[tuple[object, ...], str]] = {
    "trust_remote_code": ((False, None), "ufbert runs no code of a model; a model that needs its own is not supported"),
    "backend": (("ufbert", None), "ufbert is its own backend; leave it out"),
    "modules": ((None,), "a model comes from its folder; write one with sentence-transformers' save_pretrained"),
    "model_kwargs": ((None, {}), "ufbert has dtype=... for the precision, and nothing else to set"),
    "processor_kwargs": ((None, {}), "the tokenizer is read from the folder; max_seq_length=... sets its length"),
    "tokenizer_kwargs": ((None, {}), "the tokenizer is read from the folder; max_seq_length=... sets its length"),
    "config_kwargs": ((None, {}), "settings are read from the folder's config.json; change them there"),
    "use_auth_token": ((None,), "its name is token"),
    "model_card_data": ((None,), "a model that is only run needs no card"),
}
CALLING: dict[str, tuple[tuple[object, ...], str]] = {
    "task": (("query", "document", None), "only models with a Router have tasks; use prompt_name"),
    "processing_kwargs": ((None, {}), "max_seq_length of the encoder sets the length"),
}


def check_alone(return_truncated: bool, precision: str, convert_to_tensor: bool, beside: str) -> None:
    """Refuse what has no meaning beside `beside`."""
    for name, is_given in (
        ("return_truncated", return_truncated),
        ("precision", precision != "float32"),
        ("convert_to_tensor", convert_to_tensor),
    ):
        if is_given:
            raise InputError(f"{name}: expected it without {beside}, got both; leave one out")


class Evaluations:
    """Takes what sentence-transformers' evaluators find, where its own models have their card.

    Attributes
    ----------
    metrics : dict of str to dict of str to float
        By the evaluator's name, or else its class; the last of a name counts.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, float]] = {}

    def set_evaluation_metrics(
        self, evaluator: object, metrics: Mapping[str, float], epoch: int = 0, step: int = 0
    ) -> None:
        """Keep the metrics of an evaluator."""
        self.metrics[getattr(evaluator, "name", "") or type(evaluator).__name__] = dict(metrics)


def check_unused(call: str, given: Mapping[str, object], known: Mapping[str, tuple[tuple[object, ...], str]]) -> None:
    """Refuse arguments that would change something there, and those that nobody knows.

    Raises
    ------
    InputError
        With a sentence, if the value would make a difference.
    TypeError
        If there is no such argument.
    """
    for name, value in given.items():
        if name not in known:
            raise TypeError(f"{call}: expected no argument {name!r}, got one; its help lists those that there are")
        accepted, reason = known[name]
        if not any(value is one or (type(value) is type(one) and value == one) for one in accepted):
            raise InputError(f"{name}: expected {shown(accepted[0])} or nothing, got {shown(value)}; {reason}")


def check_device(device: object) -> None:
    """Refuse a device that is no CPU; a ``torch.device`` is known by its name."""
    if device is not None and (isinstance(device, list) or str(device).split(":")[0] != "cpu"):
        raise InputError(f"device: expected 'cpu' or None, got {shown(device)}; ufbert runs on the CPU, on all of them")


def first_given(call: str, names: tuple[str, str], values: tuple[object, object], missing: object) -> Any:  # noqa: ANN401
    """Return the one of two names of an argument that was given.

    Raises
    ------
    TypeError
        If none or both were.
    """
    given = [value for value in values if value is not missing]
    if len(given) != 1:
        raise TypeError(f"{call}: expected {names[0]} (or {names[1]}, its other name), got {len(given)} of the two")
    return given[0]


def is_tensor(value: object) -> bool:
    """Tell whether something is torch's, without importing that."""
    if isinstance(value, (list, tuple)):
        return bool(value) and is_tensor(value[0])
    return type(value).__module__.split(".")[0] == "torch"


def as_tensor(array: np.ndarray) -> Any:  # noqa: ANN401
    """Return a ``torch.Tensor`` over the memory of an array.

    Raises
    ------
    InputError
        If PyTorch is not installed.
    """
    try:
        torch = import_module("torch")
    except ImportError:
        raise InputError(
            "convert_to_tensor: expected PyTorch, it is not installed; install it, or leave this out"
        ) from None
    return torch.from_numpy(array)
