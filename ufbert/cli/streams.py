"""Texts in, results out, one after another: neither is ever held as a whole."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from ..errors import InputError

__all__ = ["ArrayWriter", "LineWriter", "open_writer", "progress", "read_texts"]


def read_texts(arguments: argparse.Namespace) -> Iterator[str]:
    """Give the texts of the arguments, of a file or of standard input, one a line; spaces count.

    Raises
    ------
    InputError
        If there are none to be had, or a line is not UTF-8.
    """
    if arguments.texts and arguments.input:
        raise InputError("texts: expected arguments or --input, got both; leave one out")
    if arguments.texts:
        return iter(arguments.texts)
    if arguments.input and arguments.input != "-":
        return _lines(open(arguments.input, "rb"), arguments.input)
    if not arguments.input and sys.stdin.isatty():
        raise InputError("texts: expected some as arguments, by --input FILE or on standard input, found none")
    return _lines(sys.stdin.buffer, "standard input")


def _lines(stream: IO[bytes], name: str) -> Iterator[str]:
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{name}: line {number}: expected UTF-8, found {error.reason}; convert it") from None
            yield text.removesuffix("\n").removesuffix("\r")


def progress(arguments: argparse.Namespace) -> Any:
    """Open a progress bar on stderr where a person is looking at it."""
    from tqdm import tqdm

    quiet = arguments.quiet or not sys.stderr.isatty()
    return tqdm(total=len(arguments.texts) or None, disable=quiet, unit="text", desc=arguments.command)


class _Writer:
    """A file that gets its name when it is closed, complete or interrupted: always with whole records."""

    def __init__(self, output: str | None) -> None:
        self.target = Path(output) if output else None
        self.part = self.target.with_name(f".{self.target.name}.{os.getpid()}.part") if self.target else None
        self.stream: IO[bytes] = open(self.part, "wb+") if self.part else sys.stdout.buffer
        self.count = 0

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.finish()
        self.stream.flush()
        if self.target and self.part:
            self.stream.close()
            if kind is not None and self.count == 0:
                self.part.unlink()  # nothing to keep, and what stood at the target stays
                return
            self.part.replace(self.target)
        if kind is not None and self.count:
            print(f"ufbert: stopped after {self.count} results, which are written", file=sys.stderr)

    def finish(self) -> None:
        """Complete the file before it is closed."""


class LineWriter(_Writer):
    """One line or more a result."""

    def __init__(self, output: str | None, render: Callable[[str, Any], str]) -> None:
        super().__init__(output)
        self.render = render

    def write(self, text: str, result: Any) -> None:
        """Write one result."""
        self.stream.write((self.render(text, result) + "\n").encode("utf-8", "replace"))
        self.stream.flush() if self.target is None else None
        self.count += 1


class ArrayWriter(_Writer):
    """Rows of one ``.npy`` file; the header is made anew with their number at the end."""

    HEADER = 128  # bytes; a multiple of 64, with room for any number of rows

    def __init__(self, output: str, width: int) -> None:
        super().__init__(output)
        self.width = width
        self.finish()

    def write(self, text: str, row: np.ndarray) -> None:
        """Write one row."""
        self.stream.write(np.ascontiguousarray(row, "<f4").data)
        self.count += 1

    def finish(self) -> None:
        """Write the header for the rows that are there, and cut off a row begun."""
        self.stream.truncate(self.HEADER + 4 * self.width * self.count)
        self.stream.seek(0)
        entries = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({self.count}, {self.width}), }}"
        length = self.HEADER - 10
        self.stream.write(np.lib.format.magic(1, 0) + length.to_bytes(2, "little"))
        self.stream.write(entries.encode().ljust(length - 1) + b"\n")
        self.stream.seek(0, os.SEEK_END)


def open_writer(arguments: argparse.Namespace, plain: Callable[[str, Any], str], key: str, width: int = 0) -> Any:
    """Open what `arguments` ask for: lines rendered by `plain`, JSON lines with the result under `key`, or an array."""
    ending = Path(arguments.output or "").suffix
    chosen = arguments.format or {".npy": "npy", ".jsonl": "jsonl"}.get(ending, "plain")
    if chosen == "npy" and width:
        return ArrayWriter(arguments.output, width)
    if chosen == "jsonl":
        return LineWriter(arguments.output, lambda text, result: json.dumps({"text": text, key: _plain(result)}))
    return LineWriter(arguments.output, plain)


def _plain(result: Any) -> Any:
    return result.tolist() if isinstance(result, np.ndarray) else result
