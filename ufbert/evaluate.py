"""Deprecated name of `ufbert.compare`."""

import warnings

from .compare import Nearness, ScoredPairs, compare, neighbours_kept, reciprocal_rank

__all__ = ["Nearness", "ScoredPairs", "compare", "neighbours_kept", "reciprocal_rank"]

MESSAGE = "ufbert.evaluate is now ufbert.compare; import from there; the old name goes with 0.3"
warnings.warn(MESSAGE, DeprecationWarning, stacklevel=2)
