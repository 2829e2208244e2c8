"""The routes of Hugging Face's text-embeddings-inference (TEI) 1.9, with its bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, isa
from ..errors import shown
from ..tokenizer import Text, Tokenizer
from .body import Body, texts_of
from .inference import cosines, embed, ranking, relevance, scores, truncation, width
from .models import Classifier, Embedder, Served
from .refusal import Refusal, empty, invalid
from .service import Call, Service

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["decode", "embed_all", "embed_route", "info", "predict", "rerank", "similarity", "tokenize"]

MOST_HIDDEN, _FLOAT = 8, 4  # times `payload_limit`: bytes of all hidden states of a request; bytes of a float32
_TOKEN = 16  # bytes of `payload_limit` for each token of an answer of /tokenize


async def embed_route(call: Call) -> object:
    """``/embed``: [[float]], two levels also for one text."""
    body = call.body
    model = call.choose(call.service.model(asked(body), Embedder))
    truncate, left = truncation(call.body, call.service.settings.auto_truncate)
    return await embed(
        call, model, body.texts("inputs"), prompt_name=prompt_name(body), dimensions=width(call, model),
        normalized=body.flag("normalize", True), truncate=truncate, left=left,
    )  # fmt: skip


async def embed_all(call: Call) -> object:
    """``/embed_all``: for each text the hidden states of its tokens, special ones included."""
    model = call.choose(call.service.model(asked(call.body), Embedder))
    texts, (truncate, left) = call.body.texts("inputs"), truncation(call.body, call.service.settings.auto_truncate)
    prompt = model.prompt(prompt_name(call.body))
    call.admit(texts, "inputs", "embed")
    encodings = await call.encode(model.variant(prompt, left), texts, truncate)
    size = _FLOAT * model.texts.model.config.hidden_size * sum(map(len, encodings))
    limit = MOST_HIDDEN * call.service.settings.payload_limit
    if size > limit:
        raise Refusal(
            413, "Validation",
            f"inputs: expected texts whose hidden states have at most {limit} bytes together, got {size}; send fewer "
            "texts a request, or raise --payload-limit",
        )  # fmt: skip
    call.hold(size)
    return await call.compute(model.hidden, encodings)


async def predict(call: Call) -> object:
    """``/predict``: classes with their scores, best first; two strings are one pair."""
    model = call.choose(call.service.model(asked(call.body), Classifier))
    texts, single = pairs(call.body.get("inputs"))
    function = "none" if call.body.flag("raw_scores", False) else None
    truncate, left = truncation(call.body, call.service.settings.auto_truncate)
    found = await scores(call, model, texts, function=function, truncate=truncate, left=left)
    rows = [ranking(model, row) for row in found]
    return rows[0] if single else rows


async def rerank(call: Call) -> object:
    """``/rerank`` with ``texts``: numbers of the texts with their scores, best first."""
    body = call.body
    model = reranker(call)
    texts, (truncate, left) = body.texts("texts"), truncation(call.body, call.service.settings.auto_truncate)
    query, raw, with_text = body.filled("query"), body.flag("raw_scores", False), body.flag("return_text", False)
    found = await relevance(call, model, query, texts, name="texts", raw=raw, truncate=truncate, left=left)
    order = np.argsort(-found, kind="stable").tolist()
    return [{"index": at, "score": found[at]} | ({"text": texts[at]} if with_text else {}) for at in order]


async def similarity(call: Call) -> object:
    """``/similarity``: cosine of a sentence and each of the others."""
    model = call.choose(call.service.model(asked(call.body), Embedder))
    inputs, parameters = call.body.part("inputs"), call.body.part("parameters")
    sentences = texts_of(inputs.get("sentences"), "inputs.sentences")
    source = inputs.filled("source_sentence")
    truncate, left = truncation(parameters, call.service.settings.auto_truncate)
    name = prompt_name(parameters)
    found = await embed(call, model, [source, *sentences], prompt_name=name, truncate=truncate, left=left)
    return cosines(found[1:], found[0])


async def tokenize(call: Call) -> object:
    """``/tokenize``: id, text and place in the text of each token."""
    model = call.choose(call.service.model(asked(call.body), Served))
    texts, special = call.body.texts("inputs"), call.body.flag("add_special_tokens", True)
    name = prompt_name(call.body)
    prompt = model.prompt(name) if isinstance(model, Embedder) and name is not None else ""
    call.admit(texts, "inputs", "")
    prompted = [prompt + text for text in texts]
    most = call.service.settings.payload_limit // _TOKEN
    return await call.in_tokenizer(lambda: _tokenized(model.texts.tokenizer, prompted, special, most))


async def decode(call: Call) -> object:
    """``/decode``: texts of token ids."""
    model = call.choose(call.service.model(asked(call.body), Served))
    skip, ids = call.body.flag("skip_special_tokens", True), call.body.get("ids")
    if not isinstance(ids, list) or not ids:
        raise invalid(f"ids: expected a list of token ids, or a list of such lists, got {shown(ids)}")
    rows = ids if isinstance(ids[0], list) else [ids]
    call.check([""] * len(rows), "ids")
    size, tokenizer = model.texts.model.config.vocab_size, model.texts.tokenizer

    def decoded() -> list[str]:
        for row in rows:
            if not isinstance(row, list) or not all(type(token) is int and 0 <= token < size for token in row):
                raise invalid(f"ids: expected integers from 0 to {size - 1}, got {shown(row)}")
        return [tokenizer.decode(row, skip) for row in rows]

    return await call.in_tokenizer(decoded)


def info(service: Service, name: str | None = None) -> dict[str, Any]:
    """``/info``: the model, and what the service allows; ``models`` has the others, which TEI does not know."""
    model, settings = service.model(name, Served), service.settings
    return {
        "model_id": model.name,
        "model_sha": model.sha256,
        "model_dtype": model.dtype,
        "served_model_name": model.name,
        "model_type": _type(model),
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_input_length": model.texts.max_length,
        "max_batch_tokens": settings.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_client_batch_size,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": service.tokenizers._max_workers,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "instruction_set": isa.active_isa(),
        "max_queue_tokens": settings.max_queue_tokens,
        "payload_limit": settings.payload_limit,
        "models": {served.name: served.kind for served in service.models.values()},
        "models_with_trees": [served.name for served in service.models.values() if served.has_trees],
    }


def asked(body: Body) -> str | None:
    """Name of the model that a request is for, None where it does not say."""
    return body.text("model", "") or None


def prompt_name(body: Body) -> str | None:
    """Name of the prompt that a request wants."""
    return body.text("prompt_name") if body.has("prompt_name") else None


def reranker(call: Call) -> Served:
    """Return the model that a request names, else the first reranker, else the first embedder."""
    service, name = call.service, asked(call.body)
    if name is None and any(model.kind == "reranker" for model in service.models.values()):
        return call.choose(service.model(None, Classifier, "reranker"))
    return call.choose(service.model(name, Served if name else Embedder))


def pairs(value: object) -> tuple[list[Text], bool]:
    """Read the inputs of a classifier: a text; two strings, a pair; or a list of [text] and [text, text]."""
    if isinstance(value, str):
        return list(texts_of(value, "inputs")), True
    if not isinstance(value, list):
        raise invalid(f"inputs: expected a string, two, or a list of [string] or [string, string], got {shown(value)}")
    if not value:
        raise empty("inputs")
    if any(isinstance(item, str) for item in value):
        return [_pair(value, "inputs")], True
    return [_pair(item, f"inputs[{index}]") for index, item in enumerate(value)], False


def _pair(value: object, name: str) -> Text:
    parts = texts_of(value if isinstance(value, list) else [value], name)
    if len(parts) > 2:
        raise invalid(
            f"{name}: expected one string, or two as a pair, got {len(parts)}; send several as [[string], ...]"
        )
    return parts[0] if len(parts) == 1 else (parts[0], parts[1])


def _type(model: Served) -> dict[str, Any]:
    if isinstance(model, Embedder):
        return {"embedding": {"pooling": "+".join(model.sentence.pooling.modes)}}
    labels = model.texts.model.config.labels
    kind = model.kind if isinstance(model, Classifier) else "classifier"
    return {
        kind: {
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
        }
    }


def _tokenized(tokenizer: Tokenizer, texts: list[str], special: bool, most: int) -> list[list[dict[str, Any]]]:
    pieces = tokenizer.pieces(texts)
    if (found := sum(map(len, pieces))) > most:
        raise Refusal(
            413, "Validation",
            f"inputs: expected texts of at most {most} tokens together, got {found}; send fewer texts a request, or "
            "raise --payload-limit",
        )  # fmt: skip
    encodings = [tokenizer.processor.process(piece) for piece in pieces] if special else pieces
    return [_tokens(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]


def _tokens(text: str, encoding: Encoding) -> list[dict[str, Any]]:
    rows = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True)
    return [
        {
            "id": token,
            "text": piece if special else text[start:stop],
            "special": bool(special),
            "start": None if special else start,
            "stop": None if special else stop,
        }
        for token, piece, special, (start, stop) in rows
    ]
