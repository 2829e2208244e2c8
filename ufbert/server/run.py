"""Running a service: sockets, signals and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socket import socket as Socket

import uvicorn

from .. import threads
from ..errors import InputError
from .app import build_app
from .endpoint import log
from .models import Served
from .protocol import JsonHandler, protocol
from .service import Service
from .settings import Settings

__all__ = ["Server", "make_server", "serve"]

KEEP_ALIVE = 75  # seconds that an idle connection is kept, longer than proxies keep theirs


class Server(uvicorn.Server):
    """uvicorn's server, whose first signal lets requests end and whose second one does not wait for them."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and SIGINT while the server runs."""
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for sent in (signal.SIGTERM, signal.SIGINT):
                try:
                    loop.add_signal_handler(sent, self._stop)
                except NotImplementedError:  # Windows
                    signal.signal(sent, lambda *_: loop.call_soon_threadsafe(self._stop))
        yield

    async def startup(self, sockets: list[Socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                log(event="ready", host=host, port=port, models=sorted(self.service.models), pid=os.getpid())

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
            self.service.end()
            return
        log(event="stopping", waiting_tokens=self.service.queue.tokens)
        self.service.drain()
        self.should_exit = True
        asyncio.get_running_loop().call_later(self.service.settings.shutdown_timeout, self.service.end)


def make_server(settings: Settings, models: dict[str, Served], host: str, port: int) -> Server:
    """Make what serves models, and run a text through each of them."""
    share = max(1, threads.get_num_threads() // settings.workers)
    os.environ["UFBERT_NUM_THREADS"] = str(share)
    service = Service(settings, models)
    service.start()
    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.level = [JsonHandler()], False, logging.WARNING
    config = uvicorn.Config(
        build_app(service), host, port, http=protocol(settings.read_timeout), ws="none", lifespan="off",
        log_config=None, access_log=False, proxy_headers=False, server_header=False, timeout_keep_alive=KEEP_ALIVE,
        backlog=2048, timeout_graceful_shutdown=int(settings.shutdown_timeout) + 5,
    )  # fmt: skip
    return Server(config, service)


def serve(settings: Settings, models: dict[str, Served], host: str, port: int) -> int:
    """Serve models until a signal ends that; return the exit code.

    Parameters
    ----------
    settings : Settings
    models : dict of str to Served
        What `ufbert.server.models.load_models` gave.
    host : str
    port : int
        0 for any that is free; the log's line "ready" names it.

    Raises
    ------
    InputError
        If the address cannot be used.
    """
    server = make_server(settings, models, host, port)
    gc.freeze()  # modules and models stay: no collection has to look at them again
    try:
        server.run()
    except SystemExit:  # uvicorn has logged why
        raise InputError(f"--host, --port: expected an address that is free, got {host}:{port}") from None
    server.service.end()
    log(event="stopped")
    return 0
