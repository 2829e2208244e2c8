"""A model folder becomes a model: files, tensors, names, configuration, build. Nothing from it is ever executed."""

from .download import download
from .folder import ModelFolder
from .pack import load, load_model
from .tokenization import load_tokenizer

__all__ = ["ModelFolder", "download", "load", "load_model", "load_tokenizer"]
