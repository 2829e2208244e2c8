"""What all routes ask of the models: embeddings, scores, rankings. The results are those of the tasks, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..heads import normalize
from ..tasks.load import top
from ..tasks.text_classifier import FUNCTIONS
from ..tokenizer import Text
from .body import Body
from .models import Classifier, Embedder, Served
from .queue import Rows
from .refusal import Refusal, invalid
from .service import Call

__all__ = ["cosines", "embed", "ranking", "relevance", "scores", "truncation", "width"]


def truncation(body: Body, default: bool) -> tuple[bool, bool | None]:
    """Whether to cut long texts, and whether at the left, None for the model's own side."""
    left = None
    if body.has("truncation_direction"):
        left = body.choice("truncation_direction", ("right", "left", "Right", "Left"), "right").lower() == "left"
    return body.flag("truncate", default), left


def width(call: Call, model: Embedder, name: str = "dimensions") -> int:
    """Dimensions that a request asks for."""
    asked = call.body.integer(name, 1, model.sentence.dimension)
    return model.dimension if asked is None else asked


async def embed(
    call: Call,
    model: Embedder,
    texts: list[str],
    *,
    name: str = "inputs",
    prompt_name: str | None = None,
    dimensions: int | None = None,
    normalized: bool = True,
    truncate: bool = True,
    left: bool | None = None,
) -> Rows:
    """Embed texts: (N, dim). Embeddings are cut to `dimensions` first, then scaled."""
    call.admit(texts, name, "embed")
    prompt = model.prompt(prompt_name)
    encodings = await call.encode(model.variant(prompt, left), texts, truncate)
    rows = await call.compute(model.lane(prompt), encodings)
    embeddings = np.stack(rows)[:, : dimensions or model.dimension]
    return normalize(embeddings) if normalized else np.ascontiguousarray(embeddings)


def cosines(embeddings: Rows, other: Rows) -> Rows:
    """Cosines of embeddings of length 1 and another one, each the same whatever stands beside it."""
    found: Rows = np.add.reduce(embeddings * other, axis=1)
    return found


async def scores(
    call: Call, model: Classifier, texts: Sequence[Text], *, name: str = "inputs", function: str | None = None,
    truncate: bool = True, left: bool | None = None,
) -> Rows:  # fmt: skip
    """Scores of the classes: (N, C)."""
    call.admit(texts, name, "predict")
    encodings = await call.encode(model.variant(left=left), texts, truncate)
    logits = np.stack(await call.compute(model.logits, encodings))
    function = model.task._function(function)
    if function not in FUNCTIONS:
        raise invalid(f"function_to_apply: expected one of {', '.join(FUNCTIONS)}, got {function:.80}")
    return FUNCTIONS[function](logits)


def ranking(model: Classifier, row: Rows, count: int | None = None) -> list[dict[str, Any]]:
    """Labels of a text with their scores, best first."""
    best = top(row, len(row) if count is None else count)
    return [{"score": row[index], "label": model.task.labels[index]} for index in best.tolist()]


async def relevance(
    call: Call, model: Served, query: str, texts: list[str], *, name: str, raw: bool = False, truncate: bool = True,
    left: bool | None = None,
) -> Rows:  # fmt: skip
    """Score texts by a query: (N,). A reranker reads both together; with an embedder it is their cosine."""
    if isinstance(model, Embedder):
        prompts = ("query", "document") if "query" in model.sentence.settings.prompts else (None, None)
        asked = await embed(call, model, [query], name=name, prompt_name=prompts[0], truncate=truncate, left=left)
        found = await embed(call, model, texts, name=name, prompt_name=prompts[1], truncate=truncate, left=left)
        return cosines(found, asked[0])
    if not isinstance(model, Classifier) or model.kind != "reranker":
        raise Refusal(424, "Backend", f"{model.name}: model is not a re-ranker model, but a {model.kind} model")
    pairs = [(query, text) for text in texts]
    function = "none" if raw else "sigmoid"
    return (await scores(call, model, pairs, name=name, function=function, truncate=truncate, left=left))[:, 0]
