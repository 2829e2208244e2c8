"""Routing statistics of FFF layers, and pruning of unused nodes."""

from .corpus import Corpus
from .prune import Pruned, PrunedLayer, prune
from .record import record_routes
from .statistics import LayerRoutes, Routes

__all__ = ["Corpus", "LayerRoutes", "Pruned", "PrunedLayer", "Routes", "prune", "record_routes"]
