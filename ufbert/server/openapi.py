"""The service's OpenAPI document. It is written by hand; a test holds it against the routes and their answers."""

from __future__ import annotations

from typing import Any

from .. import __version__

__all__ = ["DOCUMENT", "GETS"]

Schema = dict[str, Any]


def _object(required: str, **properties: Schema) -> Schema:
    """Object of named fields; `required` has the names of those that must be there."""
    schema: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = required.split()
    return schema


def _list(items: Schema, **limits: object) -> Schema:
    return {"type": "array", "items": items, **limits}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _maybe(schema: Schema) -> Schema:
    return _any(schema, {"type": "null"})


def _one_of(*values: str, about: str = "") -> Schema:
    return {"type": "string", "enum": list(values)} | ({"description": about} if about else {})


def _integer(low: int, about: str = "", high: int | None = None) -> Schema:
    limits: Schema = {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})
    return limits | ({"description": about} if about else {})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


STRING: Schema = {"type": "string"}
TEXT: Schema = {"type": "string", "minLength": 1}
NUMBER: Schema = {"type": "number"}
ROW = _list(NUMBER)
FLAG: Schema = _maybe({"type": "boolean"})
TEXTS = _any(TEXT, _list(TEXT, minItems=1))
DIMENSIONS = _maybe(_integer(1, "cut embeddings to so many, then scale them; at most the model's"))
MODEL: Schema = _maybe({"type": "string", "description": "a served model; by default the first that can do it"})
DIRECTION = _maybe(_one_of("right", "left", "Right", "Left"))
PROMPT = _maybe({"type": "string", "description": "name of one of the model's prompts"})
PAIR = _list(TEXT, minItems=1, maxItems=2)
CUT = {"truncate": FLAG, "truncation_direction": DIRECTION, "model": MODEL}
SCORE = _object("score label", score=NUMBER, label=STRING)
USAGE = _object("prompt_tokens total_tokens", prompt_tokens=_integer(0), total_tokens=_integer(0))
EMBEDDING = _object(
    "object embedding index", object=STRING, embedding=_any(ROW, STRING), index=_integer(0)
)  # fmt: skip
TOKEN = _object(
    "id text special start stop", id=_integer(0), text=STRING, special={"type": "boolean"},
    start=_maybe(_integer(0)), stop=_maybe(_integer(0)),
)  # fmt: skip
LISTED = _object("id object created owned_by", id=STRING, object=STRING, created=_integer(0), owned_by=STRING)
DOCUMENTS = _list(_any(TEXT, _object("text", text=TEXT)), minItems=1)
RANKED = _object(
    "id model results meta", id=STRING, model=STRING, usage=USAGE, meta=_object(""),
    results=_list(_object("index relevance_score", index=_integer(0), relevance_score=NUMBER, document=_object(""))),
)  # fmt: skip
BY_DOCUMENTS = _object(
    "query documents", query=TEXT, documents=DOCUMENTS, top_n=_maybe(_integer(1)), return_documents=FLAG,
    raw_scores=FLAG, max_tokens_per_doc=_maybe(_integer(1)), top_k=_maybe(_integer(1)), truncation=FLAG, model=MODEL,
)  # fmt: skip
BY_TEXTS = _object("query texts", query=TEXT, texts=TEXTS, raw_scores=FLAG, return_text=FLAG, **CUT)
PARAMETERS = _maybe(
    _object(
        "",
        top_k=_maybe(_integer(1, high=1_000)),
        function_to_apply=_maybe(_one_of("softmax", "sigmoid", "none")),
        aggregation_strategy=_maybe(_one_of("none", "simple", "first", "average", "max")),
        ignore_labels=_maybe(_list(STRING)),
    )
)
HUB_INPUTS = _any(
    TEXTS, _list(PAIR, minItems=1), _object("source_sentence sentences", source_sentence=TEXT, sentences=TEXTS),
    _object("question context", question=TEXT, context=TEXT),
)  # fmt: skip
HUB = _object(
    "inputs", inputs=HUB_INPUTS, parameters=PARAMETERS, prompt_name=PROMPT, normalize=FLAG, dimensions=DIMENSIONS, **CUT
)
KIND: Schema = {"description": "as huggingface_hub.InferenceClient reads it of the task of the model"}
SIMILAR = _object("source_sentence sentences", source_sentence=TEXT, sentences=TEXTS)
INPUT_TYPE = _maybe(
    _one_of("query", "search_query", "document", "passage", "search_document", "classification", "clustering",
            about="the model's prompt of that name is put before each text, if it has one")
)  # fmt: skip
OPENAI_REQUEST = _object(
    "input", input=TEXTS, model=MODEL, encoding_format=_maybe(_one_of("float", "base64")), dimensions=DIMENSIONS,
    user=_maybe(STRING), input_type=INPUT_TYPE,
)  # fmt: skip
OPENAI_ANSWER = _object("object data model usage", object=STRING, data=_list(EMBEDDING), model=STRING, usage=USAGE)
CONTENTS = _list(
    _object("content", content=_list(_object("text", type=_one_of("text"), text=TEXT), minItems=1)), minItems=1
)
COHERE_EMBED = _object(
    "", texts=_maybe(TEXTS), inputs=_maybe(CONTENTS), model=MODEL, output_dimension=DIMENSIONS, input_type=INPUT_TYPE,
    truncate=_maybe(_one_of("NONE", "START", "END")), embedding_types=_maybe(_list(_one_of("float", "base64"))),
)  # fmt: skip
COHERE_EMBEDDED = _object("id embeddings texts", id=STRING, embeddings=_object(""), texts=_list(STRING))
OLLAMA = _object("input", input=TEXTS, model=MODEL, truncate=FLAG, dimensions=DIMENSIONS)
OLLAMA_ANSWER = _object(
    "model embeddings prompt_eval_count", model=STRING, embeddings=_list(ROW), total_duration=_integer(0),
    load_duration=_integer(0), prompt_eval_count=_integer(0),
)  # fmt: skip
OLLAMA_OLD = _object("prompt", prompt=TEXT, model=MODEL)
ROUTES = _object(
    "model depth tokens layers", model=STRING, depth=_integer(0), tokens=_list(STRING),
    layers=_list(_list(_list(_integer(0)))),
)  # fmt: skip

# Path: what it is, the request's schema, the answer's schema.
POSTS: dict[str, tuple[str, Schema, Schema]] = {
    "/v1/embeddings": ("OpenAI: embeddings of length 1", OPENAI_REQUEST, OPENAI_ANSWER),
    "/embeddings": ("OpenAI: the same without /v1", OPENAI_REQUEST, OPENAI_ANSWER),
    "/embed": (
        "TEI: embeddings",
        _object("inputs", inputs=TEXTS, prompt_name=PROMPT, normalize=FLAG, dimensions=DIMENSIONS, **CUT),
        _list(ROW),
    ),
    "/": ("The hub's inference client: what the model's task is", HUB, KIND),
    "/invocations": ("SageMaker: the same as /", HUB, KIND),
    "/models/{name}": ("The hub's inference client: a model by its name", HUB, KIND),
    "/rerank": ("TEI with texts, Cohere and Jina with documents", _any(BY_TEXTS, BY_DOCUMENTS), KIND),
    "/v1/rerank": ("Cohere 1, Jina: texts by their relevance", _any(BY_TEXTS, BY_DOCUMENTS), KIND),
    "/v2/rerank": ("Cohere 2: texts by their relevance", _any(BY_TEXTS, BY_DOCUMENTS), KIND),
    "/v1/embed": (
        "Cohere 1: embeddings of length 1", COHERE_EMBED, _object("id embeddings texts", texts=_list(STRING)),
    ),
    "/v2/embed": ("Cohere 2: embeddings of length 1", COHERE_EMBED, COHERE_EMBEDDED),
    "/api/embed": ("Ollama: embeddings of length 1", OLLAMA, OLLAMA_ANSWER),
    "/api/embeddings": ("Ollama: the embedding of one text", OLLAMA_OLD, _object("embedding", embedding=ROW)),
    "/predict": (
        "TEI: classes with their scores; two strings are one pair",
        _object("inputs", inputs=_any(TEXT, PAIR, _list(PAIR, minItems=1)), raw_scores=FLAG, **CUT),
        _any(_list(SCORE), _list(_list(SCORE))),
    ),
    "/similarity": (
        "TEI: cosine of a sentence and each of the others",
        _object(
            "inputs", inputs=SIMILAR, model=MODEL,
            parameters=_maybe(_object("", truncate=FLAG, truncation_direction=DIRECTION, prompt_name=PROMPT)),
        ),
        ROW,
    ),
    "/embed_all": (
        "TEI: hidden states of all tokens",
        _object("inputs", inputs=TEXTS, prompt_name=PROMPT, **CUT),
        _list(_list(ROW)),
    ),
    "/tokenize": (
        "TEI: tokens of texts",
        _object("inputs", inputs=TEXTS, add_special_tokens=FLAG, prompt_name=PROMPT, model=MODEL),
        _list(_list(TOKEN)),
    ),
    "/decode": (
        "TEI: texts of token ids",
        _object(
            "ids", skip_special_tokens=FLAG, model=MODEL,
            ids=_any(_list(_integer(0), minItems=1), _list(_list(_integer(0)), minItems=1)),
        ),
        _list(STRING),
    ),
    "/routes": (
        "The leaf that each token reaches in each tree of each FFF layer",
        _object("inputs", inputs=TEXT, model=MODEL),
        ROUTES,
    ),
}  # fmt: skip
GETS: dict[str, tuple[str, str, Schema]] = {
    "/health": ("Whether requests are welcome: 200 or 503", "application/json", _object("")),
    "/ping": ("SageMaker: the same as /health", "application/json", _object("")),
    "/live": ("Whether the process answers", "application/json", _object("status", status=STRING)),
    "/info": ("TEI: the model and the limits", "application/json", _object("model_id model_type version")),
    "/metrics": ("Prometheus: figures in its text format", "text/plain", STRING),
    "/v1/models": ("OpenAI: all models", "application/json", _object("object data", object=STRING, data=_list(LISTED))),
    "/v1/models/{name}": ("OpenAI: one model", "application/json", LISTED),
    "/api/tags": ("Ollama: all models", "application/json", _object("models", models=_list(_object("name model")))),
    "/api/version": ("Ollama: the version", "application/json", _object("version", version=STRING)),
    "/api-doc/openapi.json": ("This document", "application/json", _object("openapi paths")),
    "/": ("A page for people", "text/html", STRING),
}
FAULTS = {
    400: "empty, not JSON, or token ids in the place of texts",
    401: "no key of this service",
    404: "no such model",
    408: "the body did not arrive in time",
    413: "more bytes, texts or characters than the service allows",
    415: "not application/json",
    422: "a field of the wrong type, or a value that does not fit",
    424: "the model cannot do this",
    429: "too much waits; Retry-After says when to try again",
    500: "a fault of the service",
    503: "the service is shutting down",
}
OPEN = ("/health", "/ping", "/live", "/metrics", "/api/version", "/api-doc/openapi.json", "/")
REFUSAL = _object("error error_type message", error=STRING, error_type=STRING, message=STRING)
OPENAI_ERROR = _object(
    "message type param code", message=STRING, type=STRING, param=_maybe(STRING), code=_maybe(STRING)
)


def _content(schema: Schema, media_type: str = "application/json") -> Schema:
    return {"content": {media_type: {"schema": schema}}}


def _operation(path: str, about: str, answer: Schema, faults: tuple[int, ...], media_type: str) -> Schema:
    refusal = _ref("OpenAIRefusal" if path.startswith(("/v1/embeddings", "/embeddings", "/v1/models")) else "Refusal")
    responses: Schema = {"200": {"description": "the answer", **_content(answer, media_type)}}
    for status in faults:
        retry: Schema = {"headers": {"Retry-After": {"schema": _integer(0)}}} if status in (429, 503) else {}
        responses[str(status)] = {"description": FAULTS[status], **_content(refusal), **retry}
    operation: Schema = {"summary": about, "responses": responses}
    if "{name}" in path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": TEXT}]
    return operation | (
        {} if path in OPEN and media_type and faults in ((), (503,)) else {"security": [{}, {"key": []}]}
    )


def _paths() -> Schema:
    paths: dict[str, Schema] = {}
    for path, (about, body, answer) in POSTS.items():
        operation = _operation(path, about, answer, tuple(FAULTS), "application/json")
        paths[path] = {"post": operation | {"requestBody": {"required": True, **_content(body)}}}
    for path, (about, media_type, answer) in GETS.items():
        faults = (503,) if path in ("/health", "/ping") else () if path in OPEN else (401, 404)
        operation = _operation(path, about, answer, faults, media_type)
        if path == "/info":
            operation["parameters"] = [{"name": "model", "in": "query", "schema": STRING}]
        paths.setdefault(path, {})["get"] = operation
    return dict(paths)


DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {"title": "ufbert serve", "version": __version__, "license": {"name": "Apache-2.0"}},
    "paths": _paths(),
    "components": {
        "schemas": {"Refusal": REFUSAL, "OpenAIRefusal": _object("error", error=OPENAI_ERROR)},
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
    },
}
