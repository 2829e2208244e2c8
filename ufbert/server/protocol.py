"""uvicorn's HTTP protocol with a limit on what comes before a body: its bytes and its time."""

from __future__ import annotations

import asyncio
import logging
import re

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .endpoint import log
from .service import CALLS, Call

__all__ = ["JsonHandler", "protocol"]

MAX_HEAD = 65_536  # bytes
UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Guarded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection that is closed if a request's head is too long or too slow, or an answer is not taken."""

    head_timeout = 30.0
    app_state: dict[str, object]
    _head = 0
    _timer: asyncio.TimerHandle | None = None
    _unsent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a first request, but not for ever."""
        super().connection_made(transport)
        self._calls = set[Call]()
        self.app_state = self.app_state | {CALLS: self._calls}  # each request has a copy of it
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers, and cancel what the client asked for."""
        self._stop_timer()
        self.resume_writing()
        for call in list(self._calls):
            call.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for a client that does not take its answer, but not for ever."""
        super().pause_writing()
        self._expect_less(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Go on: the client takes its answer."""
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None
        super().resume_writing()

    def _expect_less(self, size: int) -> None:
        """Close the connection unless its client takes a part of what is to be sent."""

        def check() -> None:
            left = self.transport.get_write_buffer_size()
            if left < size:
                self._expect_less(left)
            else:
                self.transport.abort()

        self._unsent = self.loop.call_later(self.head_timeout, check)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and count what is not yet a request."""
        if not self._is_serving():
            data = _without_upgrade(data)
        super().data_received(data)
        if self._is_serving():
            self._head = 0
            self._stop_timer()
            return
        self._head += len(data)
        self._start_timer()
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self.transport.write(TOO_LARGE)
            self.transport.close()

    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_timeout, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if not self._is_serving():
            self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """Rename the header ``Upgrade`` of a request's head.

    Java's client asks for HTTP/2 with it, which a service need not do; but httptools would lose the body.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0 or UPGRADE.search(data, 0, end) is None:
        return data
    return UPGRADE.sub(b"\r\nx-upgrade:", data[:end]) + data[end:]


class JsonHandler(logging.Handler):
    """Writes what uvicorn and asyncio complain about as JSON lines, without tracebacks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        log(event="server", level=record.levelname.lower(), message=record.getMessage().strip(), error=kind)


def protocol(head_timeout: float) -> type[asyncio.Protocol]:
    """Return the class of connections whose heads have this many seconds."""
    return type("Connection", (Guarded,), {"head_timeout": head_timeout})
