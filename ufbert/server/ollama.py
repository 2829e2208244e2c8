"""Ollama's route ``/api/embed``, which many desktop programs speak."""

from __future__ import annotations

from time import perf_counter

from .inference import embed, width
from .models import Embedder
from .service import Call
from .tei import asked

__all__ = ["embed_route"]


async def embed_route(call: Call) -> object:
    """``/api/embed``: embeddings of length 1; times are in nanoseconds."""
    body = call.body
    name = asked(body)
    if name and name not in call.service.models:
        name = name.removesuffix(":latest")
    model = call.choose(call.service.model(name, Embedder))
    truncate = body.flag("truncate", True)
    found = await embed(
        call, model, body.texts("input"), name="input", dimensions=width(call, model), truncate=truncate
    )
    return {
        "model": body.text("model", model.name),
        "embeddings": found,
        "total_duration": round(1e9 * (perf_counter() - call.started)),
        "load_duration": 0,
        "prompt_eval_count": call.tokens,
    }
