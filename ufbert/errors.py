"""The exceptions of the package: every one says what was expected, what was found and what to do."""

import reprlib

__all__ = ["CheckpointError", "InputError", "UfbertError", "shown"]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


class UfbertError(Exception):
    """Base class of every error that the package raises on purpose."""


class InputError(UfbertError, ValueError):
    """An argument of a call, or an environment variable, is not usable."""


class CheckpointError(UfbertError):
    """A model folder, or a file in it, is not usable."""


def shown(value: object) -> str:
    """Return a short representation for a message, however long, deeply nested or broken the value is."""
    try:
        return _SHORT.repr(value)
    except Exception:  # such as an int with more digits than Python prints
        return f"a value of type {type(value).__name__}"
