"""OpenAI's routes: ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from .inference import embed, width
from .models import Embedder, Served
from .queue import Rows
from .service import Call, Service
from .tei import asked

__all__ = ["as_base64", "embeddings", "model", "models"]


async def embeddings(call: Call) -> object:
    """``/v1/embeddings``: embeddings of length 1, as lists or as base64 of little-endian float32."""
    body = call.body
    model = call.choose(call.service.model(asked(body), Embedder))
    texts, form = body.texts("input"), body.choice("encoding_format", ("float", "base64"), "float")
    body.text("user", "")
    truncate = call.service.settings.auto_truncate
    found = await embed(call, model, texts, name="input", dimensions=width(call, model), truncate=truncate)
    rows = as_base64(found) if form == "base64" else list(found)
    return {
        "object": "list",
        "data": [{"object": "embedding", "embedding": row, "index": index} for index, row in enumerate(rows)],
        "model": model.name,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
    }


def models(service: Service) -> dict[str, Any]:
    """``/v1/models``: all models."""
    return {"object": "list", "data": [_described(model) for model in service.models.values()]}


def model(service: Service, name: str) -> dict[str, Any]:
    """``/v1/models/{id}``: one model."""
    return _described(service.model(name, Served))


def as_base64(embeddings: Rows) -> list[str]:
    """Write rows as little-endian float32 in base64."""
    return [b64encode(row.astype("<f4").tobytes()).decode() for row in embeddings]


def _described(model: Served) -> dict[str, Any]:
    created = int((model.folder / "config.json").stat().st_mtime)
    return {"id": model.name, "object": "model", "created": created, "owned_by": "ufbert", "kind": model.kind}
