"""What a service may be told: where it listens and what it allows."""

from __future__ import annotations

from dataclasses import dataclass

from .. import checks
from ..errors import InputError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Limits of a service; each is an option of ``ufbert serve``.

    Attributes
    ----------
    workers : int
        Batches that run at the same time, each on ``threads / workers`` threads.
    max_batch_tokens, max_queue_tokens : int
        Tokens of a batch, and tokens that may wait.
    max_client_batch_size : int
        Texts of a request.
    max_concurrent_requests : int
        Requests that are read or served at the same time.
    payload_limit : int
        Bytes of a request's body.
    max_text_chars : int
        Characters of a text.
    auto_truncate : bool
        Cut texts that are too long for the model, where a request does not say.
    api_keys : tuple of str
        Any of these is asked for; none for an open service.
    read_timeout, shutdown_timeout : float
        Seconds that a request may take to arrive, and that requests have to end after SIGTERM.
    cors_allow_origin : tuple of str
        Origins whose pages may call the service from a browser.
    log_requests : bool
        Log a line for each answered request, not only for those that failed.
    """

    workers: int = 1
    max_batch_tokens: int = 4_096
    max_queue_tokens: int = 262_144
    max_client_batch_size: int = 2_048
    max_concurrent_requests: int = 512
    payload_limit: int = 8_000_000
    max_text_chars: int = 200_000
    auto_truncate: bool = True
    api_keys: tuple[str, ...] = ()
    read_timeout: float = 30.0
    shutdown_timeout: float = 30.0
    cors_allow_origin: tuple[str, ...] = ()
    log_requests: bool = True

    def __post_init__(self) -> None:
        for name in (
            "workers", "max_batch_tokens", "max_queue_tokens", "max_client_batch_size", "max_concurrent_requests",
            "payload_limit", "max_text_chars",
        ):  # fmt: skip
            checks.integer(getattr(self, name), name, 1)
        for name in ("read_timeout", "shutdown_timeout"):
            checks.number(getattr(self, name), name)
        if not all(key.strip() for key in self.api_keys):
            raise InputError("api_keys: expected keys of at least one character, got an empty one, which everybody has")
