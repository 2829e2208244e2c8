"""One encoder in several processes, for those who need processes: one process uses all CPUs by its threads already."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..checkpoint.sentence import SentenceModel
from ..errors import InputError, UfbertError, shown
from ..text_model import WINDOW, checked_texts, windows
from ..threads import get_num_threads
from ..tokenizer import Text
from .habits import check_device
from .sentence_run import Call, Embeddings, Progress

if TYPE_CHECKING:
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

__all__ = ["START_METHODS", "EncoderPool", "Pooled", "Sharing", "sharing"]

START_METHODS = ("spawn", "forkserver")
_encoder: Pooled  # of a worker


class _Settings(NamedTuple):
    """A call, as it goes to a worker, which has the model."""

    prompt: str
    max_length: int
    width: int
    batch_size: int
    normalize: bool


class EncoderPool:
    """Processes that have an encoder each; `SentenceEncoder.start_multi_process_pool` makes one.

    Parameters
    ----------
    encoder : SentenceEncoder
        Each process loads it from its folder; what is mapped is shared.
    processes : int
    start_method : {"spawn", "forkserver"}
    num_threads : int, optional
        Of each process; by default all threads, divided among them.

    Raises
    ------
    InputError
        If an argument does not fit.
    """

    def __init__(
        self, encoder: Pooled, processes: int, start_method: str = "spawn", num_threads: int | None = None
    ) -> None:
        import multiprocessing  # here, for it imports tempfile and more that one process does not need
        from concurrent.futures import ProcessPoolExecutor

        self.processes = checks.integer(processes, "processes", 1)
        context = multiprocessing.get_context(checks.choice(start_method, "start_method", START_METHODS))
        threads = max(1, get_num_threads() // processes) if num_threads is None else get_num_threads(num_threads)
        self._is_closed = False
        self._workers = ProcessPoolExecutor(processes, context, _begin, (encoder, threads))

    def embeddings(self, call: Call, texts: Iterable[object], size: int) -> Iterator[Embeddings]:
        """Embed chunks of at most `size` texts, in their order, reading little ahead.

        Raises
        ------
        InputError
            If a text is none, or is too long for ``on_overflow="error"``.
        UfbertError
            If a worker died.
        """
        if self._is_closed:
            raise UfbertError(
                "pool: expected a pool that is open, got one that was closed, or lost a worker; start another"
            )
        from concurrent.futures import BrokenExecutor  # that of processes is one

        settings = _Settings(call.texts.prompt, call.texts.max_length, call.width, call.batch_size, call.normalize)
        running: deque[Future[Embeddings]] = deque()
        first = 0

        def finished() -> Embeddings:
            nonlocal first
            found = running.popleft().result()
            call.texts.check_overflow(found.truncated.tolist(), call.on_overflow, first)
            first += len(found.truncated)
            return found

        read = 0
        try:
            for chunk in windows(texts, size):
                running.append(
                    self._workers.submit(_embed, checked_texts(chunk, "sentences", read, pairs=False), settings)
                )
                read += len(chunk)
                if len(running) > 2 * self.processes:
                    yield finished()
            while running:
                yield finished()
        except BrokenExecutor as error:
            self.close()
            raise UfbertError(
                "processes: expected every worker to live, one has died (killed, perhaps for its memory; or a script "
                f'without `if __name__ == "__main__":`, which new processes run again): {error}'
            ) from None
        except KeyboardInterrupt:
            self.close()
            raise
        finally:
            for future in running:
                future.cancel()

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        self._is_closed = True
        workers = list((self._workers._processes or {}).values())
        self._workers.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.close()


class Sharing(NamedTuple):
    """How a call is shared among processes: a pool, or how many to start for it; texts of a chunk."""

    pool: EncoderPool | None
    processes: int
    chunk_size: int | None

    def embeddings(self, encoder: Pooled, call: Call, texts: Iterable[object], given: object, show: bool) -> Embeddings:
        """Embed all texts, which read `given`, in the processes."""
        count = len(given) if isinstance(given, Sized) and not isinstance(given, str) else 0
        size = self.chunk_size or max(1, min(WINDOW, -(-count // (4 * self.processes)) if count else WINDOW))
        pool = self.pool or EncoderPool(encoder, self.processes)
        rows, truncated = [np.zeros((0, call.width), np.float32)], [np.zeros(0, np.int64)]
        try:
            with Progress(count, show) as bar:
                for found in pool.embeddings(call, texts, size):
                    rows.append(found.embeddings)
                    truncated.append(found.truncated)
                    bar.update(len(found.truncated))
        finally:
            if self.pool is None:
                pool.close()
        return Embeddings(np.concatenate(rows), np.concatenate(truncated))


def sharing(others: dict[str, Any]) -> Sharing | None:
    """Take ``pool``, ``processes`` and ``chunk_size`` out of a call's arguments; None for this process alone."""
    pool, processes, size = (others.pop(name, None) for name in ("pool", "processes", "chunk_size"))
    size = None if size is None else checks.integer(size, "chunk_size", 1)
    if pool is not None:
        if not isinstance(pool, EncoderPool):
            raise InputError(f"pool: expected what start_multi_process_pool gave, got {shown(pool)}")
        if processes is not None:
            raise InputError("processes: expected none with a pool, which has its own; leave it out")
        return Sharing(pool, pool.processes, size)
    count = 1 if processes is None else checks.integer(processes, "processes", 1)
    return None if count == 1 else Sharing(None, count, size)


class Pooled(ABC):
    """The methods of an encoder that run it in several processes, by their names in sentence-transformers."""

    _model: SentenceModel

    @abstractmethod
    def encode(self, sentences: Any = ..., *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Embed texts."""

    def start_multi_process_pool(
        self,
        target_devices: Sequence[str] | None = None,
        *,
        processes: int | None = None,
        start_method: str = "spawn",
        num_threads: int | None = None,
    ) -> EncoderPool:
        """Start processes that load this encoder; with the default settings one process is as fast.

        Parameters
        ----------
        target_devices : list of str, optional
            One "cpu" for each process, as sentence-transformers has it.
        processes : int, optional
            Instead of that; 4 without either.
        start_method : {"spawn", "forkserver"}
        num_threads : int, optional
            Of each process; by default all threads, divided among them.

        Returns
        -------
        EncoderPool
            For `encode` and `encode_multi_process`; `stop_multi_process_pool` or a ``with`` ends the processes.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        if target_devices is not None and processes is not None:
            raise InputError("processes: expected it or target_devices, got both; leave one out")
        for device in target_devices or ():
            check_device(device)
        count = 4 if processes is None else processes  # four, as there
        return EncoderPool(self, count if target_devices is None else len(target_devices), start_method, num_threads)

    @staticmethod
    def stop_multi_process_pool(pool: EncoderPool) -> None:
        """End the processes."""
        pool.close()

    def encode_multi_process(self, sentences: Iterable[str], pool: EncoderPool, **options: Any) -> NDArray[np.float32]:
        """Embed texts in the processes of `pool`: `encode` with its arguments, by its former name."""
        found: NDArray[np.float32] = self.encode(sentences, pool=pool, **options)
        return found


def _begin(encoder: Pooled, threads: int) -> None:
    """Make a worker of this process."""
    import signal  # here, for one process does not need it
    import threading

    global _encoder
    os.environ["UFBERT_NUM_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends the workers
    threading.Thread(target=_follow_parent, daemon=True).start()
    _encoder = encoder


def _follow_parent() -> None:
    """End with the parent, even if that was killed."""
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _embed(texts: list[Text], settings: _Settings) -> Embeddings:
    model = _encoder._model
    prepared = replace(model.texts, prompt=settings.prompt).with_max_length(settings.max_length)
    call = Call(model, prepared, settings.width, settings.batch_size, settings.normalize, "truncate")
    return call.embeddings(texts, texts, show_progress_bar=False)
