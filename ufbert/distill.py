"""Deprecated name of `ufbert.train.distill`."""

import warnings

from .train.distill import Recipe, distill

__all__ = ["Recipe", "distill"]

warnings.warn("ufbert.distill is now ufbert.train.distill; import from there", DeprecationWarning, stacklevel=2)
