"""What the service answers instead of a result, in the two forms that clients read."""

from __future__ import annotations

from typing import Any

__all__ = ["Refusal", "as_openai", "as_tei", "empty", "invalid"]

OPENAI = {
    # status: (type, code), as openai-python shows them
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", "not_found"),
    429: ("overloaded", "rate_limit_exceeded"),
    500: ("server_error", "internal_error"),
    503: ("server_error", "unavailable"),
}


class Refusal(Exception):
    """A request that is not served.

    Parameters
    ----------
    status : int
        HTTP status of the answer.
    kind : str
        TEI's ``error_type``: Validation, Empty, Tokenizer, Backend, Overloaded, Unhealthy; or one of our own.
    message : str
        What was expected, what was got, what to do.
    retry_after : int, optional
        Seconds after which the same request may succeed.
    code : str, optional
        OpenAI's code, where the status does not say it all.
    """

    def __init__(
        self, status: int, kind: str, message: str, retry_after: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.retry_after, self.code = status, kind, message, retry_after, code


def invalid(message: str) -> Refusal:
    """A body of the wrong shape, or a value that does not fit: 422, on OpenAI's routes 400."""
    return Refusal(422, "Validation", message)


def empty(name: str) -> Refusal:
    """Nothing where a text is needed: 400, as TEI says it."""
    return Refusal(400, "Empty", f"`{name}` cannot be empty; send at least one text of at least one character")


def as_tei(refusal: Refusal) -> tuple[int, dict[str, Any]]:
    """Status and body for the clients of TEI, of the hub, of Cohere (``message``) and of Ollama (``error``)."""
    return refusal.status, {"error": refusal.message, "error_type": refusal.kind, "message": refusal.message}


def as_openai(refusal: Refusal) -> tuple[int, dict[str, Any]]:
    """Status and body for the clients of OpenAI: what TEI calls 422 and 424 is 400 there."""
    status = 400 if refusal.status in (422, 424) else refusal.status
    kind, code = OPENAI.get(status, ("invalid_request_error", None))
    error = {"message": refusal.message, "type": kind, "param": None, "code": refusal.code or code}
    return status, {"error": error}
