"""Running a service: sockets, signals and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from .. import threads
from ..errors import InputError
from .app import build_app
from .endpoint import log
from .models import load_models
from .protocol import JsonHandler, protocol
from .service import Service
from .settings import Settings

__all__ = ["serve"]

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
                loop.add_signal_handler(sent, self._stop)
        yield

    async def startup(self, sockets: Any = None) -> None:
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


def serve(settings: Settings, host: str = "127.0.0.1", port: int = 8080, quiet: bool = False) -> int:
    """Load the models and serve them until a signal ends that; return the exit code.

    Parameters
    ----------
    settings : Settings
    host : str
    port : int
        0 for any that is free; the log's line "ready" names it.
    quiet : bool
        Log the start, the end and what went wrong, but no line a request.

    Raises
    ------
    CheckpointError
        If a model folder is not usable.
    InputError
        If the address cannot be used.
    """
    share = max(1, threads.get_num_threads() // settings.workers)
    os.environ["UFBERT_NUM_THREADS"] = str(share)
    service = Service(settings, load_models(settings.models, settings.dtype, settings.pooling))
    service.start()
    config = uvicorn.Config(
        build_app(service), host, port, http=protocol(settings.read_timeout), ws="none", lifespan="off", log_config=None,
        access_log=False, server_header=False, timeout_keep_alive=KEEP_ALIVE, backlog=2048,
        timeout_graceful_shutdown=int(settings.shutdown_timeout) + 5,
    )  # fmt: skip
    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate, logger.level = [JsonHandler()], False, logging.WARNING
    server = Server(config, service)
    try:
        server.run()
    except SystemExit:
        raise InputError(f"--host, --port: expected a free address, could not listen at {host}:{port}") from None
    service.end()
    log(event="stopped")
    return 0
