"""The door of each route: limits and keys before the body is read, JSON in and out, one log line, no traceback."""

from __future__ import annotations

import asyncio
import hmac
import re
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import getrandbits
from time import perf_counter, time
from traceback import extract_tb

import orjson
from starlette.types import Receive, Scope, Send

from ..errors import InputError
from .body import parse
from .refusal import Refusal, as_openai, as_tei, invalid
from .service import CALLS, Call, Service

__all__ = ["NOTED", "Endpoint", "authorise", "log", "request_id", "respond"]

NOTED = "ufbert.noted"  # in the state of a request that an endpoint counts and logs

ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
JSON = re.compile(rb"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.IGNORECASE)
BODIES_IN_FLIGHT = 16  # largest bodies that may be held at the same time, answers included
LARGE_ANSWER = 1 << 16  # bytes, above which an answer is counted until it is sent
DISCARDED_BODIES, DISCARD_SECONDS = 8, 2.0  # what is read of a body that is too large, and for how long
ERRORS = {401: "unauthorized", 413: "batch_size", 422: "validation", 400: "validation", 424: "model_type",
          429: "overloaded", 499: "dropped", 500: "inference"}  # fmt: skip
Handler = Callable[[Call], Awaitable[object]]
Headers = list[tuple[bytes, bytes]]


class Endpoint:
    """An ASGI application for one route whose requests have a JSON body.

    Parameters
    ----------
    service : Service
    handle : callable
        Makes of a call what is answered as JSON.
    openai : bool
        Refuse in OpenAI's form, not in TEI's.
    """

    def __init__(self, service: Service, handle: Handler, openai: bool = False) -> None:
        self.service, self.handle = service, handle
        self.form = as_openai if openai else as_tei

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers, state = dict(scope["headers"]), scope["state"]
        call = Call(self.service, request_id(headers), scope["path"])
        call.argument = scope.get("path_params", {}).get("name", "")
        state[CALLS].add(call)  # of this connection: they are cancelled when it is lost
        state[NOTED] = True
        status, fault = 200, ""
        try:
            try:
                answer = orjson.dumps(await self._answer(call, headers, receive), option=orjson.OPT_SERIALIZE_NUMPY)
                extra = call.headers()
            except Exception as error:
                refusal = _refused(error)
                status, body = self.form(refusal)
                answer = orjson.dumps(body)
                extra, fault = _retry(refusal), _where(error) if refusal.status == 500 else refusal.kind
                if status in (408, 413):
                    await _discard(receive, self.service.settings.payload_limit)
                    extra.append((b"connection", b"close"))
            extra.append((b"x-request-id", call.id.encode()))
            if not call.gone:
                call.hold(len(answer))
                await respond(send, status, answer, extra)
        finally:
            state[CALLS].discard(call)
            call.leave()
        self._note(call, scope["method"], 499 if call.gone else status, fault)

    async def _answer(self, call: Call, headers: dict[bytes, bytes], receive: Receive) -> object:
        settings = self.service.settings
        authorise(settings.api_keys, headers)
        self.service.check_ready()
        if self.service.calls >= settings.max_concurrent_requests or self._is_full():
            raise _busy(settings.max_concurrent_requests)
        call.enter()
        body = await self._read(headers, receive)
        call.hold(len(body))
        call.body = parse(body)
        return await self.handle(call)

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read a body of JSON within the limits of time and size."""
        settings = self.service.settings
        if not JSON.match(headers.get(b"content-type", b"")):
            found = headers.get(b"content-type", b"none").decode("latin-1")
            raise Refusal(415, "Validation", f"content-type: expected application/json, got {found:.80}")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(415, "Validation", "content-encoding: expected none; send the body as it is")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > settings.payload_limit:
            raise _too_large(settings.payload_limit)
        try:
            async with asyncio.timeout(settings.read_timeout):
                return await _body(receive, settings.payload_limit)
        except TimeoutError:
            raise Refusal(408, "Validation", f"the body: expected within {settings.read_timeout:g} s") from None

    def _is_full(self) -> bool:
        return self.service.held > BODIES_IN_FLIGHT * self.service.settings.payload_limit

    def _note(self, call: Call, method: str, status: int, fault: str) -> None:
        """Count the request and log it; the log has figures and names, never a text."""
        metrics, seconds = self.service.metrics, perf_counter() - call.started
        metrics.answers.add(path=call.path if not call.argument else "/models", status=str(status))
        if call.kind:
            _count(call, status, seconds)
        elif status != 200:
            metrics.failures.add(err=ERRORS.get(status, "validation"))
        if status == 200 and not self.service.settings.log_requests:
            return
        log(
            id=call.id, method=method, path=call.path[:200], status=status, model=call.model, texts=call.texts,
            tokens=call.tokens, tokenization_ms=_ms(call.tokenization), queue_ms=_ms(call.queue),
            compute_ms=_ms(call.inference), total_ms=_ms(seconds), **({"error": fault} if fault else {}),
        )  # fmt: skip


def authorise(keys: tuple[str, ...], headers: dict[bytes, bytes]) -> None:
    """Raise a refusal unless a header has one of the keys; all are compared, in constant time."""
    if not keys:
        return
    scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
    given = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    if not any([hmac.compare_digest(given, key.encode()) for key in keys]):
        raise Refusal(401, "Unauthorized", "expected a key of this service, as Authorization: Bearer KEY or x-api-key")


async def respond(
    send: Send, status: int, body: bytes, headers: Headers, content_type: bytes = b"application/json"
) -> None:
    """Send a whole response."""
    first = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": first + headers})
    if len(body) > LARGE_ANSWER:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        body = b""  # which is sent when the rest has left
    await send({"type": "http.response.body", "body": body})


def log(**fields: object) -> None:
    """Write one JSON line to standard error."""
    sys.stderr.buffer.write(orjson.dumps({"time": round(time(), 3), **fields}, option=orjson.OPT_APPEND_NEWLINE))
    sys.stderr.flush()


async def _body(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(499, "Gone", "the client went away")
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _discard(receive: Receive, limit: int) -> None:
    """Read the rest of a body that is refused, within limits, so that its sender reads the answer and no reset."""
    left = DISCARDED_BODIES * limit

    async def rest() -> None:
        nonlocal left
        while left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            if not message.get("more_body", False):
                return

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(rest(), DISCARD_SECONDS)


def _refused(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return invalid(str(error))
    return Refusal(500, "Backend", "the request failed inside the service; its log has the x-request-id of this answer")


def _where(error: Exception) -> str:
    """Name an exception and the lines it came through, without its message, which may quote a text."""
    lines = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in extract_tb(error.__traceback__)[-4:]]
    return f"{type(error).__name__} at {' > '.join(lines)}"


def _retry(refusal: Refusal) -> Headers:
    if refusal.retry_after is None:
        return []
    return [(b"retry-after", str(refusal.retry_after).encode())]


def _busy(limit: int) -> Refusal:
    message = f"{limit} requests are served, or their bodies fill the memory allowed; try again in 1 s"
    return Refusal(429, "Overloaded", message + ", or raise --max-concurrent-requests", retry_after=1)


def _too_large(limit: int) -> Refusal:
    message = f"the body: expected at most {limit} bytes; send fewer texts a request, or raise --payload-limit"
    return Refusal(413, "Validation", message)


def request_id(headers: dict[bytes, bytes]) -> str:
    """Return a request's own id, or make one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if ID.fullmatch(given) else f"{getrandbits(128):032x}"


def _count(call: Call, status: int, seconds: float) -> None:
    """Count a request for inference under TEI's names."""
    metrics, method = call.service.metrics, "single" if call.texts == 1 else "batch"
    asked, done, times = metrics.kinds[call.kind]
    metrics.requests.add(method=method)
    asked.add(call.texts)
    if status != 200:
        metrics.failures.add(err=ERRORS.get(status, "validation"))
        return
    metrics.successes.add(method=method)
    done.add(call.texts)
    parts = {"total": seconds, "tokenization": call.tokenization, "queue": call.queue, "inference": call.inference}
    for part, value in parts.items():
        times[part].observe(value)


def _ms(seconds: float) -> float:
    return round(1e3 * seconds, 3)
