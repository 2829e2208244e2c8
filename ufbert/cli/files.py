"""Verbs over files: columns of Parquet, JSON lines or CSV in, a folder of parts out, which resumes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from .. import __version__
from ..scale import FORMATS, PART_ROWS, Columns, Job, Part, Runner, Settings, Shard, Worker, plan
from .options import check_model, positive
from .streams import complain

__all__ = ["add_files", "check_files", "check_without", "over_files", "run_files"]

ONLY_WITH_COLUMN = ("id", "pair_column", "query_column", "shard", "resume", "on_error", "part_rows", "ray")


def shard(text: str) -> Shard:
    """Read I/N, from 1/1 on."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError("must be I/N with I from 1 to N, such as 3/8")
    return Shard(int(index), int(count))


def add_files(parser: argparse.ArgumentParser, second: str | None = None, meaning: str = "") -> None:
    """Add what a verb over files has; `second` is the option that names a column for pairs."""
    files = parser.add_argument_group(
        "files of rows (with --column)",
        "--input is then a Parquet, JSON lines or CSV file, or a quoted pattern of some; --output is a folder.",
    )
    files.add_argument("--column", metavar="NAME", help="the column of the texts")
    if second:
        files.add_argument(second, metavar="NAME", help=meaning)
    files.add_argument("--id", metavar="NAME", help="a column to copy (default: the number of the row)")
    files.add_argument("--resume", action="store_true", help="go on where the same command was stopped")
    files.add_argument("--shard", type=shard, metavar="I/N", help="do only the I-th of N shares of the parts")
    files.add_argument(
        "--on-error", choices=("fail", "null"), help="what a row without a usable text does: stop, or give null "
        "(default: fail)",
    )  # fmt: skip
    files.add_argument(
        "--part-rows", type=positive, metavar="N", help=f"rows of an output file at most (default: {PART_ROWS:,})"
    )
    files.add_argument(
        "--ray", metavar="ADDRESS", help="share the parts among the nodes of this Ray cluster; auto: the one at hand"
    )


def over_files(arguments: argparse.Namespace) -> bool:
    """Tell whether the arguments are about files of rows."""
    return getattr(arguments, "column", None) is not None


def check_files(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what does not go with --column, and settle defaults."""
    check_model(parser, arguments)
    if arguments.texts or not arguments.input or arguments.input == "-":
        parser.error("--column needs --input FILES, and no TEXT")
    if not arguments.output or arguments.output == "-" or Path(arguments.output).is_file():
        parser.error("--column needs --output FOLDER")
    for name in ("top",) if arguments.command == "rerank" else ("top", "query"):
        if getattr(arguments, name, None) is not None:
            parser.error(f"--{name} ranks texts; leave it out with --column, which gives each row its own result")
    if arguments.command == "rerank" and (arguments.query is None) == (arguments.query_column is None):
        parser.error("expected --query or --query-column")
    if arguments.ray and arguments.shard:
        parser.error("--ray shares the parts out by itself; leave --shard out")
    arguments.part_rows = arguments.part_rows or PART_ROWS
    arguments.format = arguments.format or "parquet"
    formats = [name for name in FORMATS if name != "npy" or not (arguments.id or arguments.command == "classify")]
    if arguments.format not in formats:
        parser.error(f"--format: expected {' or '.join(formats)}, got {arguments.format}")


def check_without(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse what needs --column."""
    for name in ONLY_WITH_COLUMN:
        if getattr(arguments, name, None):
            parser.error(f"--{name.replace('_', '-')} needs --column NAME")
    if arguments.command == "rerank" and arguments.query is None:
        parser.error("expected --query, or with --column --query-column")
    if arguments.format == "parquet":
        parser.error("--format parquet needs --column NAME, and --output FOLDER")
    if str(arguments.input).endswith((".parquet", ".pq")):
        parser.error(f"{arguments.input} has columns: name the one of the texts by --column")


def run_files(
    arguments: argparse.Namespace, options: dict[str, Any], model_options: dict[str, Any], second: str | None = None
) -> int:
    """Run a verb over files.

    Parameters
    ----------
    arguments : argparse.Namespace
    options, model_options : dict
        As in `ufbert.scale.Settings`.
    second : str, optional
        The column of the other text of a pair, which comes first where it is a query.
    """
    settings = Settings(
        arguments.command, arguments.model, arguments.dtype, arguments.on_overflow, arguments.on_error or "fail",
        options, model_options,
    )  # fmt: skip
    columns: tuple[str, ...] = (arguments.column,)
    if second is not None:
        columns = (second, arguments.column) if arguments.command == "rerank" else (arguments.column, second)
    job = plan(
        arguments.input, Columns(columns, arguments.id), Path(arguments.output), settings, arguments.format,
        arguments.part_rows, __version__,
    )  # fmt: skip
    share = arguments.shard or Shard()
    job.begin(share, arguments.resume)
    todo = [part for part in job.shard(share) if job.record(part) is None]
    with _Progress(todo, len(job.shard(share)), arguments.quiet) as progress:
        if arguments.ray and todo:
            from ..scale.ray import run_parts

            for record in run_parts(job, todo, arguments.ray, arguments.threads):
                progress.finish(record)
        elif todo:
            _run_here(job, todo, progress)
    return _end(job)


def _run_here(job: Job, todo: list[Part], progress: _Progress) -> None:
    run = Runner(job, Worker(job.settings))
    for part in todo:
        progress.finish(run(part, progress.update), counted=True)


def _end(job: Job) -> int:
    """Write the manifest if all shards are done, and say what went wrong in rows."""
    whole = job.finish()
    if not whole:
        complain(f"{job.output}: other shards are not finished; the last one writes the manifest")
    return 0


class _Progress:
    """Rows done, their rate and the time left: a bar where a person is looking at it, else a line for each part."""

    def __init__(self, todo: list[Part], parts: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.total, self.parts = sum(part.rows for part in todo), parts
        self.done = parts - len(todo)
        self.is_seen = sys.stderr is not None and sys.stderr.isatty()
        self.quiet = quiet or sys.stderr is None
        self.bar = tqdm(total=self.total, unit="row", disable=self.quiet or not self.is_seen)
        self.rows, self.start, self.bad, self.cut = 0, time.monotonic(), 0, 0
        if self.done and not self.quiet:
            complain(f"{self.done} of {parts} parts are finished already")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.bar.close()
        if kind is not None and self.parts:
            complain(f"{self.done} of {self.parts} parts are finished; the same command with --resume goes on")
        if self.bad:
            complain(f"warning: {self.bad} rows without a result, which are null")
        if self.cut:
            complain(f"warning: {self.cut} texts were longer than the model takes; the rest is cut off")

    def update(self, rows: int) -> None:
        """Count rows."""
        self.rows += rows
        self.bar.update(rows)

    def finish(self, record: dict[str, Any], counted: bool = False) -> None:
        """Count a part; its rows too, unless they are `counted`."""
        if not counted:
            self.update(record["rows"])
        self.done += 1
        self.bad += record["failed"]
        self.cut += record["truncated"]
        if not self.quiet and not self.is_seen:
            rate = self.rows / max(time.monotonic() - self.start, 1e-9)
            left = (self.total - self.rows) / max(rate, 1e-9)
            complain(
                f"{self.done} of {self.parts} parts, {self.rows:,} of {self.total:,} rows, {rate:,.0f} rows/s, "
                f"{_hours(left)} left"
            )


def _hours(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
