"""The fields of a request's JSON body: each is checked as it is read, and a message names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ..errors import shown
from .refusal import Refusal, empty, invalid

__all__ = ["Body", "parse", "texts_of"]

TOKEN_IDS = (
    "{name}: expected texts, got token ids, which are another model's unless the client tokenised with this one's "
    "tokenizer; send texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
)


class Body:
    """A JSON object; `where` is its place in the body, for messages."""

    def __init__(self, found: object, where: str = "") -> None:
        if not isinstance(found, Mapping):
            raise invalid(f"{where or 'the body'}: expected a JSON object, got {shown(found)}")
        self.found: Mapping[str, object] = found
        self.where = f"{where}." if where else ""

    def has(self, name: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.found.get(name) is not None

    def get(self, name: str) -> object:
        """Return a field that must be there."""
        if not self.has(name):
            raise invalid(f"{self.where}{name}: expected a value, it is missing; add the field")
        return self.found[name]

    def part(self, name: str) -> Body:
        """Return an object, empty if it is missing."""
        return Body(self.found[name] if self.has(name) else {}, self.where + name)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string."""
        if default is not None and not self.has(name):
            return default
        value = self.get(name)
        if not isinstance(value, str):
            raise invalid(f"{self.where}{name}: expected a string, got {shown(value)}")
        return value

    def filled(self, name: str) -> str:
        """Return a string of at least one character."""
        if not (text := self.text(name)):
            raise empty(self.where + name)
        return text

    def texts(self, name: str) -> list[str]:
        """Return a string or a list of strings as a list; see `texts_of`."""
        return texts_of(self.get(name), self.where + name)

    def flag(self, name: str, default: bool) -> bool:
        """Return true or false."""
        value = self.found[name] if self.has(name) else default
        if not isinstance(value, bool):
            raise invalid(f"{self.where}{name}: expected true or false, got {shown(value)}")
        return value

    def integer(self, name: str, low: int, high: int | None = None) -> int | None:
        """Return an integer from `low` to `high`, None if it is missing."""
        if not self.has(name):
            return None
        value = self.found[name]
        if isinstance(value, float) and value.is_integer():  # 1.0 is an integer of JSON
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
            limits = f"from {low}" if high is None else f"from {low} to {high}"
            raise invalid(f"{self.where}{name}: expected an integer {limits}, got {shown(value)}")
        return value

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """Return one of `choices`."""
        value = self.text(name, default)
        if value not in choices:
            raise invalid(f"{self.where}{name}: expected one of {', '.join(choices)}, got {shown(value)}")
        return value

    def strings(self, name: str, default: Sequence[str]) -> list[str]:
        """Return a list of strings, which may be empty."""
        value = self.found[name] if self.has(name) else list(default)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise invalid(f"{self.where}{name}: expected a list of strings, got {shown(value)}")
        return value


def parse(raw: bytes) -> Body:
    """Read a body. Nesting is limited by the parser, at 1,024 levels."""
    try:
        return Body(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "Validation", f"the body: expected JSON, could not read it: {error}") from None


def texts_of(value: object, name: str) -> list[str]:
    """Return a text or a list of texts as a list; none may be empty.

    Raises
    ------
    Refusal
        400 if there is no text, or an empty one, or token ids in the place of texts; 422 if it is something else.
    """
    texts: list[Any] = value if isinstance(value, list) else [value]
    if set(map(type, texts)) - {str}:  # of millions in a moment
        index, text = next((index, text) for index, text in enumerate(texts) if not isinstance(text, str))
        place = f"{name}[{index}]" if isinstance(value, list) else name
        if _are_token_ids(text) and isinstance(value, list):
            raise Refusal(400, "Validation", TOKEN_IDS.format(name=place), code="token_ids")
        raise invalid(f"{place}: expected a string, got {shown(text)}")
    if not all(texts) or not texts:
        raise empty(name)
    return texts


def _are_token_ids(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, int) and not isinstance(first, bool)
