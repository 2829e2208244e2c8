"""Ollama's routes for embeddings and models, which many desktop programs speak."""

from __future__ import annotations

from time import gmtime, perf_counter, strftime
from typing import Any

from .. import __version__
from .inference import embed, width
from .models import Embedder, Served
from .service import Call, Service
from .tei import asked

__all__ = ["embed_route", "embeddings_route", "tags", "version"]


async def embed_route(call: Call) -> object:
    """``/api/embed``: embeddings of length 1; times are in nanoseconds."""
    body, model = call.body, _model(call)
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


async def embeddings_route(call: Call) -> object:
    """``/api/embeddings``, the older route: the embedding of one text, of length 1 here."""
    model = _model(call)
    (found,) = await embed(call, model, [call.body.filled("prompt")], name="prompt", dimensions=model.dimension)
    return {"embedding": found}


def tags(service: Service) -> dict[str, Any]:
    """``/api/tags``: all models."""
    return {"models": [_described(model) for model in service.models.values()]}


def version() -> dict[str, str]:
    """``/api/version``."""
    return {"version": __version__}


def _model(call: Call) -> Embedder:
    name = asked(call.body)
    if name and name not in call.service.models:
        name = name.removesuffix(":latest")
    return call.choose(call.service.model(name, Embedder))


def _described(model: Served) -> dict[str, Any]:
    changed = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(model.changed))
    return {
        "name": model.name, "model": model.name, "modified_at": changed, "size": model.size, "digest": model.sha256,
        "details": {"format": "safetensors", "family": "bert", "quantization_level": model.dtype},
    }  # fmt: skip
