"""The service: models, queue, figures; and the call, which is one request on its way through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from .. import threads
from ..text_model import TextModel
from ..tokenizer import Text
from .body import Body
from .metrics import Metrics
from .models import Served
from .queue import Lane, Queue, Rows, Ticket
from .refusal import Refusal, invalid
from .settings import Settings
from .trees import Visited

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["CALLS", "Call", "Service", "draining"]

CALLS = "ufbert.calls"  # in the state of a request: the calls of its connection
MOST_REPEATED = 2  # times `payload_limit`: characters of all texts of a request
INLINE_CHARS = 4_000  # that are tokenised in less time than a thread takes to wake
NO_BODY = Body({})
TASK_THREADS = 32  # requests of tasks that wait in a thread for their hidden states
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=Served)


class Service:
    """Models under their names, with one queue.

    Parameters
    ----------
    settings : Settings
    models : dict of str to Served
    """

    def __init__(self, settings: Settings, models: dict[str, Served]) -> None:
        self.settings, self.models, self.metrics = settings, models, Metrics()
        self.ready = False
        self.calls = 0  # requests that are read or served
        self.held = 0  # bytes of their bodies and answers
        self.queue = Queue(settings.max_batch_tokens, settings.max_queue_tokens, settings.workers, self._observe)
        self.tokenizers = ThreadPoolExecutor(threads.available_cpus(), "ufbert-tokenize")
        self.tasks = ThreadPoolExecutor(TASK_THREADS, "ufbert-task")
        self.visited = Visited(models.values())
        gauge = self.metrics.gauge
        gauge("ufbert_leaves_visited", "share of an FFF model's leaves that sampled texts reached", self.visited.shares)
        gauge("te_queue_size", "texts that wait", lambda: self.queue.texts)
        gauge("ufbert_queue_tokens", "tokens that wait", lambda: self.queue.tokens)
        gauge("ufbert_requests_running", "requests that are read or served", lambda: self.calls)

    def start(self) -> None:
        """Run a text through each model, so that the first request finds everything in memory."""
        for model in self.models.values():
            list(model.texts.run(model.texts.tokenize(["warm"])[0]))
        self.ready = True

    def drain(self) -> None:
        """Say that the service is not ready any more; requests that are here are still served."""
        self.ready = False

    def end(self) -> None:
        """Refuse what still waits."""
        self.queue.end(draining)

    def check_ready(self) -> None:
        """Raise a refusal unless requests are welcome."""
        if not self.ready:
            raise draining()

    def model(self, name: str | None, kind: type[Kind], *kinds: str) -> Kind:
        """Find a model by its name, or the first one of a kind.

        Raises
        ------
        Refusal
            404 if no model has that name, 424 if it is of another kind.
        """
        if name and name not in self.models:
            known = ", ".join(sorted(self.models))
            raise Refusal(
                404, "NotFound", f"model: expected one of {known}, got {name:.80}", code="model_not_found"
            )  # fmt: skip
        for model in [self.models[name]] if name else self.models.values():
            if isinstance(model, kind) and (not kinds or model.kind in kinds):
                return model
        wanted = " or ".join(kinds) or kind.about
        served = ", ".join(f"{model.name} ({model.kind})" for model in self.models.values())
        raise Refusal(
            424, "Backend", f"{name or 'the service'}: model is not a model for {wanted}; served are {served}"
        )

    def _observe(self, texts: int, tokens: int, seconds: float) -> None:
        self.metrics.batch_size.observe(texts)
        self.metrics.batch_tokens.observe(tokens)
        self.metrics.tokens.add(tokens)
        self.metrics.compute.add(seconds)


@dataclass(eq=False)
class Call:
    """One request: its body, what it asked of the queue, and how long that took.

    Times are in seconds; `kind` is "embed" or "predict" once the request is one for inference.
    """

    service: Service
    id: str
    path: str
    body: Body = NO_BODY
    argument: str = ""  # the part of the path that names a model
    model: str = ""
    kind: str = ""
    texts: int = 0
    characters: int = 0
    tokens: int = 0
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    started: float = field(default_factory=perf_counter)
    gone: bool = False
    entered: bool = False
    held: int = 0  # bytes of its body and its answer
    tickets: list[Ticket] = field(default_factory=list)

    def enter(self) -> None:
        """Count as a request that is served, until `leave`."""
        self.entered = True
        self.service.calls += 1

    def hold(self, size: int) -> None:
        """Count bytes that are held for the request, until `leave`."""
        self.held += size
        self.service.held += size

    def leave(self) -> None:
        """Count no more."""
        self.service.calls -= self.entered
        self.service.held -= self.held

    def choose(self, model: Kind) -> Kind:
        """Note which model the request is for."""
        self.model = model.name
        return model

    def admit(self, texts: Sequence[Text], name: str, kind: str) -> None:
        """Check number and length of texts, before anything is done with them."""
        self.kind, self.texts = kind, self.texts + len(texts)
        self.characters += self.check(texts, name)

    def check(self, texts: Sequence[Text], name: str) -> int:
        """Check number and length of texts; return their characters."""
        settings, total = self.service.settings, 0
        count = max(self.texts, len(texts))
        if count > settings.max_client_batch_size:
            raise Refusal(
                413, "Validation",
                f"{name}: batch size {count} > maximum allowed batch size {settings.max_client_batch_size}; "
                "send fewer texts a request, or start the service with a larger --max-client-batch-size",
            )  # fmt: skip
        for text in texts:
            characters = len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
            total += characters
            if characters > settings.max_text_chars:
                raise Refusal(
                    413, "Validation",
                    f"{name}: expected at most {settings.max_text_chars} characters a text, got {characters}; split "
                    "the text, or start the service with a larger --max-text-chars",
                )  # fmt: skip
        if total > MOST_REPEATED * settings.payload_limit:  # of pairs, whose first text may be long
            raise Refusal(
                413, "Validation",
                f"{name}: expected at most {MOST_REPEATED * settings.payload_limit} characters in all pairs together, "
                f"got {total}; shorten what is paired with each text, send fewer texts, or raise --payload-limit",
            )  # fmt: skip
        return total

    async def encode(self, model: TextModel, texts: Sequence[Text], truncate: bool) -> list[Encoding]:
        """Tokenise texts that were admitted, in a thread if they are long."""
        started, characters = perf_counter(), self.characters
        if characters <= INLINE_CHARS:
            encodings, truncated = model.tokenize(texts)
        else:
            encodings, truncated = await self.in_tokenizer(lambda: model.tokenize(texts))
        self.tokenization += perf_counter() - started
        if not truncate and any(truncated):
            index = next(index for index, count in enumerate(truncated) if count)
            raise invalid(
                f"`inputs` must have less than {model.max_length + 1} tokens. Given: "
                f"{len(encodings[index]) + truncated[index]} in text {index}; shorten it, or send truncate: true"
            )
        return encodings

    async def compute(self, lane: Lane, encodings: Sequence[Encoding]) -> list[Rows]:
        """Put texts into the queue and wait for their results."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Ticket] = loop.create_future()
        ticket = self._submit(lane, encodings, lambda done: loop.call_soon_threadsafe(_settle, future, done))
        try:
            await future
        except asyncio.CancelledError:
            self.service.queue.cancel(ticket, _gone())
            raise
        return self._results(ticket)

    async def in_tokenizer(self, function: Callable[[], Result]) -> Result:
        """Run what computes for a while, in a thread that tokenises."""
        return await asyncio.get_running_loop().run_in_executor(self.service.tokenizers, function)

    async def in_thread(self, function: Callable[[], Result]) -> Result:
        """Run a task that waits for the queue, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.service.tasks, function)

    def wait(self, lane: Lane, encodings: Sequence[Encoding]) -> list[Rows]:
        """Do as `compute` does, in a thread of `in_thread`."""
        future: Future[Ticket] = Future()
        ticket = self._submit(lane, encodings, future.set_result)
        future.result()
        return self._results(ticket)

    def cancel(self) -> None:
        """Take the request out of the queue: its client went away."""
        self.gone = True
        for ticket in self.tickets:
            self.service.queue.cancel(ticket, _gone())

    def headers(self) -> list[tuple[bytes, bytes]]:
        """TEI's headers about time, in whole milliseconds."""
        return [
            (b"x-compute-type", b"cpu"),
            (b"x-compute-time", _milliseconds(self.tokenization + self.inference)),
            (b"x-compute-characters", b"%d" % self.characters),
            (b"x-compute-tokens", b"%d" % self.tokens),
            (b"x-total-time", _milliseconds(perf_counter() - self.started)),
            (b"x-tokenization-time", _milliseconds(self.tokenization)),
            (b"x-queue-time", _milliseconds(self.queue)),
            (b"x-inference-time", _milliseconds(self.inference)),
        ]

    def _submit(self, lane: Lane, encodings: Sequence[Encoding], done: Callable[[Ticket], object]) -> Ticket:
        if self.gone:
            raise _gone()
        ticket = self.service.queue.submit(lane, encodings, done)
        self.tickets.append(ticket)
        self.service.visited.note(self.model, encodings[-1])
        lengths = list(map(len, encodings))
        self.tokens += sum(lengths)
        for length in lengths:
            self.service.metrics.input_length.observe(length)
        return ticket

    def _results(self, ticket: Ticket) -> list[Rows]:
        if ticket.error is not None:
            raise ticket.error
        self.queue += ticket.started - ticket.queued
        self.inference += ticket.compute
        return [rows for rows in ticket.results if rows is not None]


def draining() -> Refusal:
    """Refuse, because the service ends."""
    return Refusal(503, "Unhealthy", "the service is shutting down; send the request to another one", retry_after=1)


def _gone() -> Refusal:
    return Refusal(499, "Gone", "the client went away")


def _settle(future: asyncio.Future[Ticket], ticket: Ticket) -> None:
    if not future.done():
        future.set_result(ticket)


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % round(1e3 * seconds)
