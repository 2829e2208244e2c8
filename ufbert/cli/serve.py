"""Serve models over HTTP to the clients of OpenAI, TEI, Cohere, Ollama and the hub.

Answers are the same bits as those of "ufbert embed", whatever else is asked at
the same time. Every option can also be given as an environment variable:
--max-batch-tokens as UFBERT_MAX_BATCH_TOKENS, several models or keys separated
by commas. SIGTERM lets requests end; a second one does not wait for them.

  ufbert serve --dtype int8
  ufbert serve --model minilm=FOLDER --model sentiment --port 8080
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from concurrent.futures import ThreadPoolExecutor

from ..errors import InputError
from .options import add_precision, add_run, positive

__all__ = ["add_arguments", "run"]

NEEDED = ("starlette", "uvicorn", "orjson")
LISTS = ("model", "api_key", "cors_allow_origin")
SWITCHES = {"1": True, "true": True, "0": False, "false": False}
MAX_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.usage = "%(prog)s [--model [NAME=]FOLDER ...] [OPTIONS]"
    parser.add_argument(
        "--model", action="append", metavar="[NAME=]FOLDER",
        help="model folder, or a bundled model's name; repeat it for several (default: the default encoder of "
        "ufbert-weights)",
    )  # fmt: skip
    parser.add_argument("--pooling", help="for folders that do not say how to pool: cls, mean, lasttoken, ...")
    add_precision(parser)
    add_run(parser, "log no line for each answered request")
    where = parser.add_argument_group("where it listens, and who may ask")
    where.add_argument("--host", default="127.0.0.1", help="(default: 127.0.0.1, this machine only)")
    where.add_argument("--port", type=_port, default=8080, help="0 for any that is free (default: 8080)")
    where.add_argument("--api-key", action="append", metavar="KEY", help="ask for this key; repeat it for several")
    where.add_argument(
        "--cors-allow-origin", action="append", metavar="ORIGIN", help="pages of this origin may call (default: none)"
    )
    limits = parser.add_argument_group("limits")
    for name, default, about in (
        ("--workers", 1, "batches that run at the same time, sharing the threads"),
        ("--max-batch-tokens", 4_096, "tokens of a batch"),
        ("--max-queue-tokens", 262_144, "tokens that may wait; more are refused with 429"),
        ("--max-client-batch-size", 2_048, "texts of a request"),
        ("--max-concurrent-requests", 512, "requests that are read or served at the same time"),
        ("--payload-limit", 8_000_000, "bytes of a request"),
        ("--max-text-chars", 200_000, "characters of a text"),
    ):
        limits.add_argument(name, type=positive, default=default, metavar="N", help=f"{about} (default: {default:,})")
    limits.add_argument(
        "--read-timeout", type=float, default=30, metavar="S", help="seconds a request may take to arrive (default: 30)"
    )
    limits.add_argument(
        "--shutdown-timeout", type=float, default=30, metavar="S",
        help="seconds that requests have to end after SIGTERM (default: 30)",
    )  # fmt: skip
    limits.add_argument(
        "--auto-truncate", choices=("true", "false"), default="true",
        help="cut texts that are too long for the model, where a request does not say (default: true)",
    )  # fmt: skip
    _take_environment(parser)


def _port(text: str) -> int:
    """Read the number of a port, or 0."""
    value = int(text)
    if not 0 <= value <= MAX_PORT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {MAX_PORT}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"serve: expected the package {missing[0]}, it is not installed; pip install 'ufbert[server]'")
    from ..server.models import load_models
    from ..server.settings import Settings

    settings = Settings(
        workers=arguments.workers,
        max_batch_tokens=arguments.max_batch_tokens,
        max_queue_tokens=arguments.max_queue_tokens,
        max_client_batch_size=arguments.max_client_batch_size,
        max_concurrent_requests=arguments.max_concurrent_requests,
        payload_limit=arguments.payload_limit,
        max_text_chars=arguments.max_text_chars,
        auto_truncate=arguments.auto_truncate == "true",
        api_keys=tuple(arguments.api_key or ()),
        read_timeout=arguments.read_timeout,
        shutdown_timeout=arguments.shutdown_timeout,
        cors_allow_origin=tuple(arguments.cors_allow_origin or ()),
        log_requests=not arguments.quiet,
    )
    with ThreadPoolExecutor(1) as pool:  # the other packages are imported meanwhile
        models = pool.submit(load_models, arguments.model or (), arguments.dtype, arguments.pooling)
        from ..server.run import serve
    return serve(settings, models.result(), arguments.host, arguments.port)


def _take_environment(parser: argparse.ArgumentParser) -> None:
    """Let environment variables give the defaults; argparse reads them as it reads the options."""
    for action in parser._actions:
        value = os.environ.get("UFBERT_" + action.dest.upper())
        if not action.option_strings or action.dest in ("help", "threads") or not value:
            continue
        if value.startswith("tcp://"):  # Kubernetes gives a service called "ufbert" this UFBERT_PORT
            continue
        if action.choices is not None and value not in action.choices:
            wanted = ", ".join(map(str, action.choices))
            raise InputError(f"UFBERT_{action.dest.upper()}: expected one of {wanted}, got {value!r:.80}; correct it")
        if action.dest == "quiet":
            action.default = _switch("UFBERT_QUIET", value)
            continue
        action.default = [part.strip() for part in value.split(",")] if action.dest in LISTS else value
        if "" in action.default and action.dest in LISTS:
            raise InputError(f"UFBERT_{action.dest.upper()}: expected something between commas; leave out the comma")


def _switch(name: str, value: str) -> bool:
    """Read a variable for an option without a value."""
    if value.lower() not in SWITCHES:
        raise InputError(f"{name}: expected one of {', '.join(SWITCHES)}, got {value!r:.80}; correct it")
    return SWITCHES[value.lower()]
