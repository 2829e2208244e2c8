"""The routes of Cohere, Jina and Voyage: rerank and embed."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import numpy as np

from ..errors import shown
from ..text_model import TextModel
from .body import Body, texts_of
from .inference import embed, relevance, width
from .models import Embedder
from .openai import as_base64, prompt_of
from .refusal import empty, invalid
from .service import Call
from .tei import asked, reranker
from .tei import rerank as rerank_texts

__all__ = ["embed_v1", "embed_v2", "rerank"]

VERSION = {"version": "2"}


async def rerank(call: Call) -> object:
    """``/rerank``, ``/v1/rerank``, ``/v2/rerank``: TEI's form for a body with ``texts``, else Cohere's and Jina's.

    Voyage's form differs in the names of what is asked (``top_k``, ``truncation``) and answered (``data``).
    """
    body = call.body
    of_voyage = "truncation" in body.found or "top_k" in body.found
    if body.has("texts"):
        return await rerank_texts(call)
    model = reranker(call)
    documents = _documents(body.get("documents"))
    query, counts = body.filled("query"), (body.integer("top_n", 1), body.integer("top_k", 1))
    count = counts[of_voyage]
    with_text, raw = body.flag("return_documents", False), body.flag("raw_scores", False)
    cut = body.integer("max_tokens_per_doc", 1)
    truncate = body.flag("truncation", True)
    if cut is not None:
        call.check(documents, "documents")
        whole, limit = documents, cut
        documents = await call.in_tokenizer(lambda: _cut(model.texts, whole, limit))
    found = await relevance(call, model, query, documents, name="documents", raw=raw, truncate=truncate)
    order = np.argsort(-found, kind="stable")[:count].tolist()
    results: list[dict[str, Any]] = [{"index": at, "relevance_score": found[at]} for at in order]
    for result in results if with_text else []:
        text = documents[result["index"]]
        result["document"] = text if of_voyage else {"text": text}
    if of_voyage:
        usage = {"total_tokens": call.tokens}
        return {"object": "list", "data": results, "model": model.name, "usage": usage}
    return {
        "id": str(uuid4()),
        "model": model.name,
        "results": results,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
        "meta": {"api_version": VERSION, "billed_units": {"search_units": 1}},
    }


async def embed_v2(call: Call) -> object:
    """``/v2/embed``: embeddings of length 1 in the forms asked for."""
    return await _embed(call, by_type=True)


async def embed_v1(call: Call) -> object:
    """``/v1/embed``: the same; without ``embedding_types`` a list of embeddings."""
    return await _embed(call, by_type=call.body.has("embedding_types"))


async def _embed(call: Call, by_type: bool) -> object:
    body = call.body
    model = call.choose(call.service.model(asked(body), Embedder))
    if body.has("inputs") and body.has("texts"):
        raise invalid("inputs: expected either texts or inputs, got both; leave one out")
    texts = _contents(body.get("inputs")) if body.has("inputs") else body.texts("texts")
    side = body.choice("truncate", ("NONE", "START", "END"), "END")
    forms = body.strings("embedding_types", ("float",)) or ["float"]
    if not set(forms) <= {"float", "base64"}:
        raise invalid(f"embedding_types: expected float or base64, got {shown(forms)}; ufbert makes no others")
    found = await embed(
        call, model, texts, name="texts", prompt_name=prompt_of(body, model),
        dimensions=width(call, model, "output_dimension"), truncate=side != "NONE",
        left={"START": True, "END": False}.get(side),
    )  # fmt: skip
    embeddings = {form: found if form == "float" else as_base64(found) for form in forms}
    return {
        "id": str(uuid4()),
        "embeddings": embeddings if by_type else found,
        "texts": texts,
        "meta": {"api_version": VERSION, "billed_units": {"input_tokens": call.tokens}},
        "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
    }


def _contents(value: object) -> list[str]:
    """Read ``[{"content": [{"type": "text", "text": ...}]}]``: the texts of one content are one text."""
    if not isinstance(value, list):
        raise invalid(f"inputs: expected a list of objects with content, got {shown(value)}")
    texts = []
    for at, item in enumerate(value):
        parts = Body(item, f"inputs[{at}]").get("content")
        place = f"inputs[{at}].content"
        if not isinstance(parts, list):
            raise invalid(f"{place}: expected a list, got {shown(parts)}")
        found = [Body(part, f"{place}[{number}]") for number, part in enumerate(parts)]
        for part in found:
            part.choice("type", ("text",), "text")
        texts.append("\n".join(part.text("text") for part in found))
    return texts_of(texts, "inputs")


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
    cut = []
    for text, encoding in zip(documents, model.tokenizer.pieces(documents), strict=True):
        end = len(text)
        if len(encoding) > count:
            encoding.truncate(count)  # else all of its offsets would become objects of Python
            end = encoding.offsets[-1][1]
        cut.append(text[:end])
    return cut
