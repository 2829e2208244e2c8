"""Deprecated name of `ufbert.compare`."""

import warnings

from .compare import Nearness, ScoredPairs, compare, neighbours_kept, reciprocal_rank

__all__ = ["Nearness", "ScoredPairs", "compare", "neighbours_kept", "reciprocal_rank"]

warnings.warn("ufbert.evaluate is now ufbert.compare; import from there", DeprecationWarning, stacklevel=2)
