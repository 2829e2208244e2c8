"""Deprecated name of `ufbert.train`."""

import warnings

from .train import Bert, FastFeedForward, mixed_precision, use_threads

__all__ = ["Bert", "FastFeedForward", "mixed_precision", "use_threads"]

MESSAGE = "ufbert.torch is now ufbert.train; import from there; the old name goes with 0.3"
warnings.warn(MESSAGE, DeprecationWarning, stacklevel=2)
