"""OpenAI's routes: ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from .body import Body
from .inference import embed, width
from .models import Embedder, Served
from .queue import Rows
from .service import Call, Service
from .tei import asked

__all__ = ["as_base64", "embeddings", "model", "models", "prompt_of"]

# Which of a model's prompts an input_type of Cohere, Voyage or NVIDIA stands for.
INPUT_TYPES = {
    "query": "query", "search_query": "query", "document": "document", "passage": "document",
    "search_document": "document", "classification": None, "clustering": None,
}  # fmt: skip


async def embeddings(call: Call) -> object:
    """``/v1/embeddings``: embeddings of length 1, as lists or as base64 of little-endian float32."""
    body = call.body
    model = call.choose(call.service.model(asked(body), Embedder))
    texts, form = body.texts("input"), body.choice("encoding_format", ("float", "base64"), "float")
    body.text("user", "")
    truncate, prompt = call.service.settings.auto_truncate, prompt_of(body, model)
    found = await embed(
        call, model, texts, name="input", prompt_name=prompt, dimensions=width(call, model), truncate=truncate
    )
    rows = as_base64(found) if form == "base64" else list(found)
    return {
        "object": "list",
        "data": [{"object": "embedding", "embedding": row, "index": index} for index, row in enumerate(rows)],
        "model": model.name,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
    }


def prompt_of(body: Body, model: Embedder) -> str | None:
    """Name of the prompt that ``input_type`` stands for, if the model has it; None for the model's default one."""
    found = INPUT_TYPES[body.choice("input_type", tuple(INPUT_TYPES), "classification")]
    return found if found in model.sentence.settings.prompts else None


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
    return {"id": model.name, "object": "model", "created": model.changed, "owned_by": "ufbert", "kind": model.kind}
