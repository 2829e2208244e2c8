"""Running a model over a corpus while its trees note which nodes are visited."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from .. import cmm
from ..checkpoint.folder import ModelFolder
from ..checkpoint.sentence import load_sentence_model
from ..encoder import Model
from ..errors import CheckpointError, InputError
from ..layers import FastFeedForward
from ..tasks.load import load_texts
from ..text_model import TextModel, each_text
from .statistics import MARGIN_BINS, LayerRoutes, Routes, margin_bins

__all__ = ["RecordedTrees", "load_text_model", "record_routes", "recording"]


def load_text_model(folder: str | os.PathLike[str], dtype: str = "float32") -> TextModel:
    """Load a folder's encoder and tokenizer, as `ufbert.SentenceEncoder` has them where it says how to pool.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or its feed-forward layers are no trees.
    """
    root = ModelFolder(folder)
    found = load_sentence_model(root, dtype=dtype).texts if root.pooling() else load_texts(root, None, dtype)
    if found.model.config.feed_forward != "fff":
        raise CheckpointError(
            f"{root.path}: expected a model with FFF layers, found {found.model.config.feed_forward} feed-forward "
            "layers, through which every token goes the same way; choose an UltraFastBERT or ufbert model"
        )
    return found


class RecordedTrees:
    """Stands in the place of a layer's trees, computes the same, and counts; threads may share it."""

    def __init__(self, trees: cmm.PackedFFF) -> None:
        self.trees = trees
        self.num_tokens = 0
        self.visits = np.zeros((trees.num_trees, trees.num_nodes), np.int64)
        self.smallest = np.full(trees.num_trees, np.inf, np.float32)
        self.margins = np.zeros(MARGIN_BINS, np.int64)
        self._lock = threading.Lock()

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(T, H) -> (T, H), and count."""
        y: np.ndarray
        y, path, scores = self.trees(x, return_path=True, return_scores=True)
        visits = cmm.node_visits(path, self.trees.num_nodes)
        deciding = np.abs(scores[:, :, :-1])  # (T, P, depth); NaN is no margin, and fmin leaves it out
        by_tree = np.fmin.reduce(deciding, axis=(0, 2), initial=np.inf)
        by_token = np.fmin.reduce(deciding, axis=(1, 2), initial=np.inf)
        margins = np.bincount(margin_bins(by_token), minlength=MARGIN_BINS)
        with self._lock:
            self.num_tokens += len(x)
            self.visits += visits
            self.smallest = np.minimum(self.smallest, by_tree)
            self.margins += margins
        return y

    def routes(self, layer: int) -> LayerRoutes:
        """What was counted so far."""
        return LayerRoutes(layer, self.trees.depth, self.num_tokens, self.visits, self.smallest, self.margins)


def recording(model: Model) -> tuple[Model, list[RecordedTrees]]:
    """Return a model that shares the weights of `model`, gives the same bits, and counts in the trees returned."""
    recorded, layers = [], []
    for layer in model.encoder.layers:
        part = layer.feed_forward
        if not (isinstance(part, FastFeedForward) and isinstance(part.trees, cmm.PackedFFF)):
            raise InputError("model: expected packed FFF layers, got others; load a folder that has them")
        recorded.append(RecordedTrees(part.trees))
        layers.append(replace(layer, feed_forward=replace(part, trees=recorded[-1]), fused=None))
    return replace(model, encoder=replace(model.encoder, layers=tuple(layers)), reload=None), recorded


def record_routes(folder: str | os.PathLike[str], texts: Iterable[str], dtype: str = "float32") -> Routes:
    """Count which nodes of a model's trees the tokens of a corpus visit, and how near their decisions were.

    Parameters
    ----------
    folder : str or path
        A model folder with FFF layers and a tokenizer.
    texts : iterable of str
        Any number; 1,024 are held at a time. See `Corpus`.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision; see `ufbert.load`.

    Returns
    -------
    Routes

    Raises
    ------
    CheckpointError
        If the folder is not usable, or its feed-forward layers are no trees.
    InputError
        If `texts` holds no text, or something else.
    """
    routes, _ = run_recorded(load_text_model(folder, dtype), texts)
    return routes


def run_recorded(source: TextModel, texts: Iterable[str]) -> tuple[Routes, list[bytes]]:
    """Record a run; also return a digest of each batch's hidden states, by which another run can be compared."""
    model, trees = recording(source.model)
    num_texts, digests = 0, []
    recorded = replace(source, model=model)
    for window in recorded.windows(each_text(texts, "texts"), "texts"):
        for run in recorded.run(window.encodings):
            num_texts += len(run.batch)
            digests.append(digest(run.hidden))
    if not num_texts:
        raise InputError("texts: expected at least one that is not empty, found only empty ones; check the corpus")
    layers = tuple(tree.routes(index) for index, tree in enumerate(trees))
    return Routes(layers, num_texts, layers[0].num_tokens, source.model.precision.dtype), digests


def digest(hidden: np.ndarray) -> bytes:
    """16 bytes that differ where any bit of the hidden states does."""
    from hashlib import blake2b

    return blake2b(np.ascontiguousarray(hidden).data, digest_size=16).digest()
