"""The former place of `ModelFolder`, until nothing imports it from here."""

from .folder import INDEX, WEIGHTS, ModelFolder

__all__ = ["INDEX", "WEIGHTS", "ModelFolder"]
