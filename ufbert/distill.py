"""Deprecated name of `ufbert.train.distill`."""

import warnings

from .train.distill import Recipe, distill

__all__ = ["Recipe", "distill"]

MESSAGE = "ufbert.distill is now ufbert.train.distill; import from there; the old name goes with 0.3"
warnings.warn(MESSAGE, DeprecationWarning, stacklevel=2)
