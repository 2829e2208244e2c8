"""The queue: the texts of all requests wait here, and workers take them by token budget.

There is no delay timer: a free worker takes the oldest text and all that fit. So a batch grows with the load, and a
lonely text does not wait. What "oldest" means is fair to small requests: a text of a large request stands behind the
tokens of that request before it (start-time fair queueing). Small requests are served in the order of their arrival; a
large one cannot make them wait for more than the batches that run.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Condition, Thread
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..text_model import Run, TextModel
from .refusal import Refusal

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Lane", "Queue", "Rows", "Ticket"]

SHARE = 4  # a request counts for at most this part of the queue, so that one of any size is admitted to an empty one
LONGEST_RETRY = 60  # seconds
Rows = NDArray[np.float32]


class _Text(NamedTuple):
    """A text that a worker has taken; a cancelled ticket lets go of its own."""

    ticket: Ticket
    number: int
    encoding: Encoding


@dataclass(frozen=True, eq=False)
class Lane:
    """Texts that may share a forward pass.

    Attributes
    ----------
    texts : TextModel
    finish : callable
        Makes one array of each text of a run: pairs of its number among the encodings and the array.
    """

    texts: TextModel
    finish: Callable[[Run], Iterable[tuple[int, Rows]]]

    def compute(self, encodings: Sequence[Encoding]) -> list[Rows]:
        """Run a batch; return what `finish` makes of each text, in order."""
        found = dict(pair for run in self.texts.run(encodings) for pair in self.finish(run))
        return [found[index] for index in range(len(encodings))]


@dataclass(eq=False)
class Ticket:
    """The texts of one request; `done` is called once, by a worker's thread, when all are computed or one failed."""

    lane: Lane
    encodings: Sequence[Encoding]
    done: Callable[[Ticket], object]
    results: list[Rows | None]
    waiting: int  # tokens that no worker has taken
    error: Exception | None = None
    taken: int = 0  # texts that a worker has taken
    finished: int = 0
    queued: float = field(default_factory=perf_counter)
    started: float = 0.0  # when the first text was taken
    compute: float = 0.0  # seconds of the batches that had a text of it, by its share of their tokens

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.error is not None or self.finished == len(self.encodings)

    def tell(self) -> None:
        """Call `done`; nobody waits any more where the event loop is closed."""
        with suppress(RuntimeError):
            self.done(self)


class Queue:
    """Texts wait, workers compute.

    Parameters
    ----------
    max_batch_tokens : int
        Tokens of a batch; a longer text makes a batch of its own.
    max_queue_tokens : int
        Tokens that may wait.
    workers : int
        Batches that run at the same time.
    observe : callable, optional
        Is told the texts, the tokens and the seconds of each batch.
    """

    def __init__(
        self,
        max_batch_tokens: int,
        max_queue_tokens: int,
        workers: int = 1,
        observe: Callable[[int, int, float], None] = lambda texts, tokens, seconds: None,
    ) -> None:
        self.max_batch_tokens, self.max_queue_tokens = max_batch_tokens, max_queue_tokens
        self.tokens = 0  # that wait and count
        self.texts = 0  # that wait
        self.rate = 1e5  # tokens a second of all workers, of late
        self._observe, self._workers = observe, workers
        self._heaps: dict[Lane, list[tuple[int, int, Ticket]]] = {}
        self._clock = 0  # where the last text that was taken stood
        self._numbers = count()
        self._changed = Condition()
        self._closed: Callable[[], Refusal] | None = None
        self._ended = False
        self._threads = [Thread(target=self._work, name=f"ufbert-{index}", daemon=True) for index in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, lane: Lane, encodings: Sequence[Encoding], done: Callable[[Ticket], object]) -> Ticket:
        """Admit all texts of a request, or none.

        Raises
        ------
        Refusal
            429 with the seconds after which there is room again; 503 if the service ends.
        """
        tokens = sum(map(len, encodings))
        ticket = Ticket(lane, encodings, done, [None] * len(encodings), tokens)
        with self._changed:
            if self._closed is not None:
                raise self._closed()
            if self.tokens + self._charge(tokens) > self.max_queue_tokens:
                raise self._overloaded(self.tokens + self._charge(tokens) - self.max_queue_tokens)
            self.tokens += self._charge(tokens)
            self.texts += len(encodings)
            heapq.heappush(self._heaps.setdefault(lane, []), (self._clock, next(self._numbers), ticket))
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket, error: Exception) -> None:
        """Take the texts of a ticket out; nothing happens if it is over."""
        with self._changed:
            if ticket.is_over:
                return
            self._drop(ticket, error)
        ticket.tell()

    def end(self, refusal: Callable[[], Refusal]) -> None:
        """Admit no more, fail what waits, and let the workers end after the batches that run."""
        with self._changed:
            self._closed = refusal
            waiting = [ticket for heap in self._heaps.values() for _, _, ticket in heap]
            self._ended = True
            self._changed.notify_all()
        for ticket in waiting:
            self.cancel(ticket, refusal())

    def join(self) -> None:
        """Wait until the workers have ended."""
        for thread in self._threads:
            thread.join()

    def _charge(self, tokens: int) -> int:
        return min(tokens, self.max_queue_tokens // SHARE)

    def _overloaded(self, tokens: int) -> Refusal:
        seconds = min(LONGEST_RETRY, math.ceil(tokens / self.rate))
        return Refusal(
            429,
            "Overloaded",
            f"the queue is full: {self.tokens} of {self.max_queue_tokens} tokens wait; try again in {seconds} s, or "
            "start the service with a larger --max-queue-tokens",
            retry_after=seconds,
        )

    def _waits(self, ticket: Ticket, texts: int, tokens: int) -> None:
        """Count texts and tokens of a ticket that wait no more."""
        self.tokens += self._charge(ticket.waiting - tokens) - self._charge(ticket.waiting)
        ticket.waiting -= tokens
        self.texts -= texts

    def _drop(self, ticket: Ticket, error: Exception) -> None:
        self._waits(ticket, len(ticket.encodings) - ticket.taken, ticket.waiting)
        ticket.error, ticket.encodings, ticket.results = error, (), []

    def _work(self) -> None:
        while batch := self._take():
            tokens, started = sum(len(text.encoding) for text in batch), perf_counter()
            results = _computed(batch)
            seconds = perf_counter() - started
            self._observe(len(batch), tokens, seconds)
            self._deliver(batch, results, seconds / max(tokens, 1))
            self.rate += 0.2 * (self._workers * tokens / max(seconds, 1e-6) - self.rate)

    def _take(self) -> list[_Text]:
        """Wait for texts; return the oldest and all that fit; nothing at the end."""
        with self._changed:
            while (heap := self._oldest()) is None:
                if self._ended:
                    return []
                self._changed.wait()
            batch: list[_Text] = []
            room, now = min(self.max_batch_tokens, -(-self.tokens // self._workers)), perf_counter()
            while heap:
                at, number, ticket = heap[0]
                if ticket.is_over:  # cancelled
                    heapq.heappop(heap)
                    continue
                encoding = ticket.encodings[ticket.taken]
                tokens = len(encoding)
                if batch and tokens > room:
                    break
                batch.append(_Text(ticket, ticket.taken, encoding))
                room, self._clock = room - tokens, max(self._clock, at)
                ticket.started = ticket.started or now
                ticket.taken += 1
                self._waits(ticket, 1, tokens)
                if ticket.taken < len(ticket.encodings):
                    heapq.heapreplace(heap, (at + tokens, number, ticket))
                else:
                    heapq.heappop(heap)
            if any(self._heaps.values()):
                self._changed.notify()
            return batch

    def _oldest(self) -> list[tuple[int, int, Ticket]] | None:
        """Return the heap with the oldest text of all lanes."""
        for heap in self._heaps.values():
            while heap and heap[0][2].is_over:
                heapq.heappop(heap)
        return min((heap for heap in self._heaps.values() if heap), key=lambda heap: heap[0][:2], default=None)

    def _deliver(self, batch: list[_Text], results: list[Rows | Exception], seconds_a_token: float) -> None:
        over: list[Ticket] = []
        with self._changed:
            for (ticket, number, encoding), result in zip(batch, results, strict=True):
                if ticket.is_over:  # cancelled while it was computed
                    continue
                if isinstance(result, Exception):
                    self._drop(ticket, result)
                else:
                    ticket.compute += seconds_a_token * len(encoding)
                    ticket.results[number] = result
                    ticket.finished += 1
                if ticket.is_over:
                    over.append(ticket)
        for ticket in over:
            ticket.tell()


def _computed(batch: list[_Text]) -> list[Rows | Exception]:
    """Compute a batch; if that fails, each text alone, so that only the one that is at fault fails."""
    try:
        return list(batch[0].ticket.lane.compute([text.encoding for text in batch]))
    except Exception as error:
        if len(batch) == 1:
            return [error]
        return [result for text in batch for result in _computed([text])]
