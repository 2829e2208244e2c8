"""The exceptions of the package: every one says what was expected, what was found and what to do."""

import reprlib

__all__ = ["CheckpointError", "InputError", "UfbertError", "shown"]

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


LONGEST = 2_000  # characters of a message: a hostile file may be quoted in it, by a library too


class UfbertError(Exception):
    """Base class of every error that the package raises on purpose.

    The middle of a message that is too long is left out: what is wrong stands at its beginning, what helps at its end.
    """

    def __init__(self, message: str = "") -> None:
        half = LONGEST // 2
        super().__init__(message if len(message) <= LONGEST else f"{message[:half]} ... {message[-half:]}")


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
