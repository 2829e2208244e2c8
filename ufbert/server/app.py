"""The routes of the service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from time import perf_counter

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from . import cohere, hub, leaves, ollama, openai, tei
from .endpoint import NOTED, Endpoint, authorise, log, request_id
from .openapi import DOCUMENT, GETS
from .refusal import Refusal, as_openai, as_tei
from .service import Service, draining

__all__ = ["PAGE", "build_app"]

PAGE = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"),
        "/page.js": ("page.js", "text/javascript")}  # fmt: skip
SAFE = {  # the page needs nothing from elsewhere, and nothing else may frame or sniff it
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
HANDLERS = {
    "/v1/embeddings": openai.embeddings,
    "/embeddings": openai.embeddings,
    "/embed": tei.embed_route,
    "/": hub.infer,
    "/rerank": cohere.rerank,
    "/v1/rerank": cohere.rerank,
    "/v2/rerank": cohere.rerank,
    "/v1/embed": cohere.embed_v1,
    "/v2/embed": cohere.embed_v2,
    "/api/embed": ollama.embed_route,
    "/api/embeddings": ollama.embeddings_route,
    "/predict": tei.predict,
    "/similarity": tei.similarity,
    "/embed_all": tei.embed_all,
    "/tokenize": tei.tokenize,
    "/decode": tei.decode,
    "/routes": leaves.routes,
    "/invocations": hub.infer,
    "/models/{name}": hub.infer,
}
IN_OPENAI_FORM = ("/v1/embeddings", "/embeddings")


class _Root:
    """The page for people, and the route of the hub's client: one route, so that ``Allow`` names both methods."""

    def __init__(self, door: Endpoint) -> None:
        self.door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] == "POST":
            return await self.door(scope, receive, send)
        response = await _file(*PAGE["/"], Request(scope))
        await response(scope, receive, send)


class _App(Starlette):
    """Routes, and what they have in common: an id, a line of the log, a count."""

    service: Service
    doors: Mapping[str, Endpoint]  # what a POST reaches without a search for its route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        door = self.doors.get(scope["path"]) if scope["method"] == "POST" else None
        if door is not None:
            return await door(scope, receive, send)
        started, status, found = perf_counter(), 500, request_id(dict(scope["headers"]))

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start" and not scope["state"].get(NOTED):
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", found.encode())]
            await send(message)

        await super().__call__(scope, receive, send_named)
        if not scope["state"].get(NOTED):
            self._note(scope, status, found, perf_counter() - started)

    def _note(self, scope: Scope, status: int, found: str, seconds: float) -> None:
        path = scope["path"]
        known = "/v1/models" if path.startswith("/v1/models/") else path
        known = known if known in GETS or known in HANDLERS or known in PAGE else "other"
        self.service.metrics.answers.add(path=known, status=str(status))
        if status >= 400 or self.service.settings.log_requests:
            log(id=found, method=scope["method"][:20], path=path[:200], status=status, total_ms=round(1e3 * seconds, 3))


def build_app(service: Service) -> Starlette:
    """Return the ASGI application of a service."""
    doors = {path: Endpoint(service, handle, path in IN_OPENAI_FORM) for path, handle in HANDLERS.items()}
    posts = [Route(path, door, methods=["POST"]) for path, door in doors.items() if path != "/"]
    posts.append(Route("/", _Root(doors["/"]), methods=["GET", "POST"]))
    cors = Middleware(
        CORSMiddleware, allow_origins=service.settings.cors_allow_origin, allow_headers=["*"], allow_methods=["*"]
    )
    app = _App(
        routes=posts + _gets(service),
        middleware=[cors] if service.settings.cors_allow_origin else [],
        exception_handlers={HTTPException: _unknown},
    )
    app.service = service
    app.doors = {} if service.settings.cors_allow_origin else {path: doors[path] for path in doors if "{" not in path}
    return app


def _gets(service: Service) -> list[Route]:
    open_routes: dict[str, Callable[[Request], Response]] = {
        "/health": lambda request: _health(service),
        "/ping": lambda request: _health(service),
        "/live": lambda request: _json({"status": "alive"}),
        "/api/version": lambda request: _json(ollama.version()),
        "/api-doc/openapi.json": lambda request: _json(DOCUMENT),
    }
    closed: dict[str, Callable[[Request], object]] = {
        "/info": lambda request: tei.info(service, request.query_params.get("model")),
        "/v1/models": lambda request: openai.models(service),
        "/v1/models/{name}": lambda request: openai.model(service, request.path_params["name"]),
        "/api/tags": lambda request: ollama.tags(service),
    }
    routes = [Route(path, partial(_plain, handle), methods=["GET"]) for path, handle in open_routes.items()]
    routes += [Route(path, partial(_closed, service, handle), methods=["GET"]) for path, handle in closed.items()]
    routes.append(Route("/metrics", partial(_metrics, service), methods=["GET"]))
    return routes + [
        Route(path, partial(_file, *found), methods=["GET"]) for path, found in PAGE.items() if path != "/"
    ]


async def _plain(handle: Callable[[Request], Response], request: Request) -> Response:
    return handle(request)


async def _metrics(service: Service, request: Request) -> Response:
    text = await run_in_threadpool(service.metrics.text)  # a text may run through a model with trees
    return Response(text, media_type="text/plain; version=0.0.4")


async def _closed(service: Service, handle: Callable[[Request], object], request: Request) -> Response:
    """Answer a GET that needs a key."""
    try:
        authorise(service.settings.api_keys, dict(request.scope["headers"]))
        return _json(await run_in_threadpool(handle, request))  # the digest of weights takes a while, once
    except Refusal as refusal:
        in_form = as_openai if request.url.path.startswith("/v1/") else as_tei
        status, body = in_form(refusal)
        return _json(body, status)


async def _file(name: str, media_type: str, request: Request) -> Response:
    return Response(files(__package__).joinpath("page", name).read_bytes(), media_type=media_type, headers=SAFE)


def _health(service: Service) -> Response:
    return _json({"status": "ready"}) if service.ready else _refusal(draining())


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer for paths and methods that do not exist."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path:.80}: {error.detail}; /api-doc/openapi.json has all routes"
    kind = "NotFound" if error.status_code == 404 else "Validation"
    return _refusal(Refusal(error.status_code, kind, message), dict(error.headers or {}))


def _refusal(refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    status, body = as_tei(refusal)
    return _json(body, status, headers)


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")
