"""Which leaf each token reaches in each tree: what only FFF models can show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..cmm import PackedFFF
from ..layers import FastFeedForward
from ..text_model import TextModel
from .models import Served
from .refusal import Refusal
from .service import Call
from .tei import asked

__all__ = ["leaves", "routes"]

MOST_CHARS = 2_000  # of a text whose picture is drawn


async def routes(call: Call) -> object:
    """``/routes``: tokens of a text, and for each layer the leaf (T, P) that they reach in each tree."""
    model = call.choose(_with_trees(call, asked(call.body)))
    text = call.body.filled("inputs")
    call.admit([text[:MOST_CHARS]], "inputs", "predict")
    encodings = await call.encode(model.texts, [text[:MOST_CHARS]], truncate=True)
    call.tokens = len(encodings[0])
    found = await call.in_thread(lambda: leaves(model.texts, text[:MOST_CHARS]))
    config = model.texts.model.config
    return {
        "model": model.name,
        "depth": config.depth,
        "num_trees": config.num_trees,
        "tokens": encodings[0].tokens,
        "layers": found,
    }


def leaves(model: TextModel, text: str) -> list[NDArray[np.int64]]:
    """Return for each layer the leaves of the tokens in each tree, (T, P), counted from the left.

    The hidden states are those of the model, bit for bit.
    """
    encodings, _ = model.tokenize([text])
    batch = model.batch(encodings)
    encoder, found = model.model.encoder, []
    for layer, trace in zip(encoder.layers, encoder.trace(batch), strict=True):
        part = layer.feed_forward
        if not isinstance(part, FastFeedForward) or not isinstance(part.trees, PackedFFF):
            continue
        assert trace.feed_forward_input is not None  # as asked for
        _, path = part.trees(trace.feed_forward_input, return_path=True)
        found.append(np.asarray(path[:, :, -1], np.int64) - (2**part.trees.depth - 1))
    return found


def _with_trees(call: Call, name: str | None) -> Served:
    for model in [call.service.model(name, Served)] if name else call.service.models.values():
        if model.has_trees:
            return model
    raise Refusal(424, "Backend", f"{name or 'the service'}: expected a model with FFF layers, found none")
