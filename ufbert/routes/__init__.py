"""Which ways tokens take through the trees of a model, and a model without the nodes that none takes."""

from .corpus import Corpus
from .prune import Pruned, PrunedLayer, prune
from .record import record_routes
from .statistics import LayerRoutes, Routes

__all__ = ["Corpus", "LayerRoutes", "Pruned", "PrunedLayer", "Routes", "prune", "record_routes"]
