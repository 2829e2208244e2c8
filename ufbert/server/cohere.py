"""The routes of Cohere and of Jina: rerank and embed."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import numpy as np

from ..errors import shown
from ..text_model import TextModel
from .body import Body, texts_of
from .inference import embed, relevance, width
from .models import Embedder
from .openai import as_base64
from .refusal import empty, invalid
from .service import Call
from .tei import asked, reranker
from .tei import rerank as rerank_texts

__all__ = ["embed_v2", "rerank"]

VERSION = {"version": "2"}
# Which of a model's prompts an input_type stands for.
INPUT_TYPES = {"search_query": "query", "search_document": "document", "classification": None, "clustering": None}


async def rerank(call: Call) -> object:
    """``/rerank``, ``/v1/rerank``, ``/v2/rerank``: TEI's form for a body with ``texts``, else Cohere's and Jina's."""
    body = call.body
    if body.has("texts"):
        return await rerank_texts(call)
    model = reranker(call)
    documents = _documents(body.get("documents"))
    query, count = body.filled("query"), body.integer("top_n", 1)
    with_text, raw = body.flag("return_documents", False), body.flag("raw_scores", False)
    cut = body.integer("max_tokens_per_doc", 1)
    if cut is not None:
        documents = _cut(model.texts, documents, cut)
    found = await relevance(call, model, query, documents, name="documents", raw=raw)
    order = np.argsort(-found, kind="stable")[:count].tolist()
    results: list[dict[str, Any]] = [{"index": at, "relevance_score": found[at]} for at in order]
    for result in results if with_text else []:
        result["document"] = {"text": documents[result["index"]]}
    return {
        "id": str(uuid4()),
        "model": model.name,
        "results": results,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
        "meta": {"api_version": VERSION, "billed_units": {"search_units": 1}},
    }


async def embed_v2(call: Call) -> object:
    """``/v2/embed``: embeddings of length 1 in the forms asked for."""
    body = call.body
    model = call.choose(call.service.model(asked(body), Embedder))
    texts = body.texts("texts")
    kind = body.choice("input_type", tuple(INPUT_TYPES), "classification")
    side = body.choice("truncate", ("NONE", "START", "END"), "END")
    forms = body.strings("embedding_types", ("float",)) or ["float"]
    if not set(forms) <= {"float", "base64"}:
        raise invalid(f"embedding_types: expected float or base64, got {shown(forms)}; ufbert makes no others")
    prompt = INPUT_TYPES[kind] if INPUT_TYPES[kind] in model.sentence.settings.prompts else None
    found = await embed(
        call, model, texts, name="texts", prompt_name=prompt, dimensions=width(call, model, "output_dimension"),
        truncate=side != "NONE", left={"START": True, "END": False}.get(side),
    )  # fmt: skip
    embeddings = {form: found if form == "float" else as_base64(found) for form in forms}
    return {
        "id": str(uuid4()),
        "embeddings": embeddings,
        "texts": texts,
        "meta": {"api_version": VERSION, "billed_units": {"input_tokens": call.tokens}},
        "response_type": "embeddings_by_type",
    }


def _documents(value: object) -> list[str]:
    """Read strings, or objects with ``text``."""
    if not isinstance(value, list):
        raise invalid(f"documents: expected a list of strings or of objects with text, got {shown(value)}")
    if not value:
        raise empty("documents")
    return texts_of(
        [Body(item, f"documents[{at}]").text("text") if isinstance(item, dict) else item
         for at, item in enumerate(value)],
        "documents",
    )  # fmt: skip


def _cut(model: TextModel, documents: list[str], count: int) -> list[str]:
    """Cut documents after `count` tokens."""
    encodings = model.tokenizer.pieces(documents)
    ends = [
        len(text) if len(e) <= count else e.offsets[count - 1][1] for text, e in zip(documents, encodings, strict=True)
    ]
    return [text[:end] for text, end in zip(documents, ends, strict=True)]
