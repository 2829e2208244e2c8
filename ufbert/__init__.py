"""BERT encoders and UltraFastBERT on a CPU, without a deep-learning framework."""

from . import cmm, reference
from .errors import CheckpointError, InputError, UfbertError

__version__ = "0.1.0"
__all__ = ["CheckpointError", "InputError", "UfbertError", "__version__", "cmm", "reference"]
