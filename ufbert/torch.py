"""Deprecated name of `ufbert.train`."""

import warnings

from .train import Bert, FastFeedForward, mixed_precision, use_threads

__all__ = ["Bert", "FastFeedForward", "mixed_precision", "use_threads"]

warnings.warn("ufbert.torch is now ufbert.train; import from there", DeprecationWarning, stacklevel=2)
