"""Run a job's parts, one after another: each becomes a file that appears when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..checkpoint.writing import digest, whole_file
from ..errors import InputError
from ..text_model import WINDOW, windows
from .job import Job, Part
from .sinks import open_sink
from .sources import Cursor, open_source
from .worker import Worker

__all__ = ["Report", "Runner"]

Report = Callable[[int], None]


class Runner:
    """Runs parts of one job with one worker.

    Parameters
    ----------
    job : Job
    worker : Worker
    """

    def __init__(self, job: Job, worker: Worker) -> None:
        self.job, self.worker = job, worker
        self._cursor: Cursor | None = None

    def __call__(self, part: Part, report: Report | None = None) -> dict[str, Any]:
        """Write a part and its record; return the record.

        Parameters
        ----------
        part : Part
        report : callable
            Told how many rows are done, now and then.

        Raises
        ------
        InputError
            If a row is refused, or the input has changed.
        """
        report = report or (lambda rows: None)
        target = self.job.file(part)
        for left in target.parent.glob(f".{target.name}.*.part"):  # by a run that was killed
            left.unlink(missing_ok=True)
        with whole_file(target) as place:
            counts = self._write(part, place, report)
            counts |= {"bytes": place.stat().st_size, "sha256": digest([place])}
        record = {"file": target.name, "input": part.input.name, "first_row": part.first, "rows": part.rows, **counts}
        self.job.write_record(part, record)
        return record

    def _write(self, part: Part, place: Path, report: Report) -> dict[str, Any]:
        counts: dict[str, Any] = {"failed": 0, "truncated": 0}
        number = part.first
        with open_sink(place, self.job.format, self.job.layout(part, self.worker)) as sink:
            for ids, texts in self._windows(part):
                results = self.worker(texts, partial(_where, part.input.path, number))
                keys = range(number, number + len(texts)) if self.job.columns.id is None else ids
                try:
                    sink.write(keys, results)
                except InputError as error:  # about an id
                    last = number + len(texts) - 1
                    raise InputError(f"{part.input.path}: rows {number} to {last}: {error}") from None
                if results.failed and not counts["failed"]:
                    first = min(results.failed)
                    counts["first_failed"] = {"row": number + first, "why": results.failed[first]}
                counts["failed"] += len(results.failed)
                counts["truncated"] += results.truncated
                number += len(texts)
                report(len(texts))
        return counts

    def _windows(self, part: Part) -> Iterator[tuple[list[object], list[object]]]:
        """Read a part's ids and texts, as many at a time as are tokenised together."""
        if self._cursor is None or self._cursor.source.path != part.input.path:
            self._cursor = Cursor(open_source(part.input.path, self.job.columns))
        rows, ids = self._cursor.read(part.first, part.rows), []

        def texts() -> Iterator[object]:
            for row in rows:
                ids.append(row.id)
                yield row.text

        for window in windows(texts(), WINDOW):
            yield ids.copy(), window
            ids.clear()


def _where(path: Path, first: int, number: int) -> str:
    return f"{path}: row {first + number}"
