"""A JSON object of a model folder, read key by key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from .. import checks
from ..errors import CheckpointError, UfbertError

__all__ = ["Options"]

ADVICE = "ufbert supports nothing else: correct the file, or use another checkpoint"


class Options:
    """A JSON object, read key by key; every complaint names the key by its full path.

    Parameters
    ----------
    values : mapping
    where : str or path
        The file and the path in it so far: "config.json", "config.json: arch", ...
    """

    def __init__(self, values: Mapping[str, Any], where: str | os.PathLike[str]) -> None:
        self.values, self.where = values, where

    def get(self, key: str, default: Any) -> Any:
        """Value of a key whose range is checked elsewhere; null counts as absent."""
        value = self.values.get(key)
        return default if value is None else value

    def section(self, key: str) -> Options:
        """Return the object under a key, empty if it is absent."""
        value = self.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "an object", value)
        return Options(value, f"{self.where}: {key}")

    def flag(self, key: str, default: bool) -> bool:
        """Return a true or false value."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def number(self, key: str, default: float) -> float:
        """Return a number from 0 to 1, such as an epsilon."""
        value, name = self.get(key, default), f"{self.where}: {key}"
        return checks.number(value, name, 0, 1, advice=ADVICE, error=CheckpointError)

    def integer(self, key: str, minimum: int) -> int | None:
        """Return an integer, None if it is absent."""
        value, name = self.get(key, None), f"{self.where}: {key}"
        return None if value is None else checks.integer(value, name, minimum, advice=ADVICE, error=CheckpointError)

    def choice(self, key: str, choices: Iterable[Any], default: Any) -> Any:
        """Return a value that is one of `choices`."""
        value = self.values.get(key, default)
        choices = list(choices)
        if not any(value is choice or (type(value) is type(choice) and value == choice) for choice in choices):
            raise self.error(key, "one of " + ", ".join(map(str, choices)), value)
        return value

    def refuse_unless(self, key: str, accepted: Iterable[Any], default: Any) -> None:
        """Refuse an option that only ablations of the architecture use."""
        value = self.values.get(key, default)
        if value not in list(accepted):
            raise self.error(key, f"{default!r}, the only one supported", value)

    def error(self, key: str, expected: str, value: Any) -> UfbertError:
        """Build the complaint."""
        return checks.refusal(f"{self.where}: {key}", expected, value, ADVICE, CheckpointError)
