"""Which leaf each token reaches in each tree of an FFF model, and which leaves were reached so far."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..cmm import PackedFFF
from ..layers import FastFeedForward
from ..text_model import TextModel
from .models import Served

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Visited", "leaves"]


def leaves(model: TextModel, encoding: Encoding) -> list[NDArray[np.int64]]:
    """Return for each layer the leaves of a text's tokens in each tree, (T, P), counted from the left.

    The hidden states on the way are those of the model, bit for bit.
    """
    encoder, found = model.model.encoder, []
    for layer, trace in zip(encoder.layers, encoder.trace(model.batch([encoding])), strict=True):
        part = layer.feed_forward
        if isinstance(part, FastFeedForward) and isinstance(part.trees, PackedFFF):
            assert trace.feed_forward_input is not None  # as asked for
            _, path = part.trees(trace.feed_forward_input, return_path=True)
            found.append(np.asarray(path[:, :, -1], np.int64) - (2**part.trees.depth - 1))
    return found


class Visited:
    """Leaves that sampled texts have reached: of each model the last text before each look.

    Parameters
    ----------
    models : iterable of Served
    """

    def __init__(self, models: Iterable[Served]) -> None:
        self._models = {model.name: model.texts for model in models if model.has_trees}
        self._last: dict[str, Encoding] = {}
        self._seen: dict[str, list[NDArray[np.bool_]]] = {}
        self._lock = Lock()

    def note(self, model: str, encoding: Encoding) -> None:
        """Keep a text for the next look, if it is for a model with trees."""
        if model in self._models:
            self._last[model] = encoding

    def shares(self) -> dict[str, float]:
        """Take the texts that were noted; return for each model the share of its leaves that were reached so far."""
        with self._lock:
            for name in list(self._last):
                self._add(name, leaves(self._models[name], self._last.pop(name)))
            return {
                name: float(np.mean([layer.mean() for layer in self._seen[name]])) if name in self._seen else 0.0
                for name in self._models
            }

    def _add(self, name: str, found: list[NDArray[np.int64]]) -> None:
        config = self._models[name].model.config
        if name not in self._seen:
            self._seen[name] = [np.zeros((config.num_trees, 2**config.depth), np.bool_) for _ in found]
        for seen, reached in zip(self._seen[name], found, strict=True):
            seen[np.arange(config.num_trees), reached] = True
