"""The exceptions of the package: every one says what was expected, what was found and what to do."""

__all__ = ["CheckpointError", "InputError", "UfbertError"]


class UfbertError(Exception):
    """Base class of every error that the package raises on purpose."""


class InputError(UfbertError, ValueError):
    """An argument of a call, or an environment variable, is not usable."""


class CheckpointError(UfbertError):
    """A model folder, or a file in it, is not usable."""
