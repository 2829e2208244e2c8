"""The former place of `ModelFolder.tensors`, until nothing imports it from here."""

from .folder import ModelFolder

__all__ = ["open_tensors"]

open_tensors = ModelFolder.tensors
