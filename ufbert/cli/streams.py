"""Texts in, results out, one after another: neither is ever held as a whole."""

from __future__ import annotations

import argparse
import json
import os
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from typing import Self

    from tqdm import tqdm

    from ..routes import Corpus

__all__ = [
    "ArrayWriter",
    "LineWriter",
    "Watched",
    "complain",
    "discard_unwritten",
    "open_writer",
    "progress",
    "read_texts",
    "write_results",
]


def complain(message: str) -> None:
    """Say something on standard error, if that is open."""
    if sys.stderr is not None:
        print(f"ufbert: {message}", file=sys.stderr)


def discard_unwritten(stream: IO[Any]) -> None:
    """Forget what a stream cannot write, so that nothing tries again when Python ends."""
    if stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def read_texts(arguments: argparse.Namespace) -> Iterator[str]:
    """Give the texts of the arguments, of a file or of standard input, one a line; spaces count.

    Raises
    ------
    InputError
        If standard input is closed, or a line is not UTF-8.
    """
    if arguments.texts:
        return iter(arguments.texts)
    if arguments.input and arguments.input != "-":
        return _lines(open(arguments.input, "rb"), arguments.input)
    if sys.stdin is None:
        raise InputError("standard input: expected texts, found it closed; give them as arguments or by --input FILE")
    return _lines(sys.stdin.buffer, "standard input")


def _lines(stream: IO[bytes], name: str) -> Iterator[str]:
    with stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{name}: line {number}: expected UTF-8, found {error.reason}; convert it") from None
            yield text.removesuffix("\n").removesuffix("\r")


def progress(arguments: argparse.Namespace) -> tqdm:
    """Open a progress bar on stderr where a person is looking at it."""
    from tqdm import tqdm

    quiet = arguments.quiet or sys.stderr is None or not sys.stderr.isatty()
    return tqdm(total=len(arguments.texts) or None, disable=quiet, unit="text", desc=arguments.command)


class Watched:
    """A corpus with a progress bar on stderr, where a person is looking at it, each time it is read."""

    def __init__(self, corpus: Corpus, arguments: argparse.Namespace) -> None:
        self.corpus, self.command = corpus, arguments.command
        self.quiet = arguments.quiet or sys.stderr is None or not sys.stderr.isatty()

    def __iter__(self) -> Iterator[str]:
        from tqdm import tqdm

        yield from tqdm(self.corpus, self.command, self.corpus.max_texts, disable=self.quiet, unit="text")


def write_results(
    arguments: argparse.Namespace,
    plain: Callable[[str, Any], str],
    key: str,
    stream: Callable[[Iterator[str]], Iterator[Any]],
    width: int = 0,
    kind: str = "<f4",
) -> int:
    """Stream the texts through a task and write each result when it is there; return the exit code.

    Parameters
    ----------
    arguments : argparse.Namespace
    plain : callable
        A text and its result to lines for people.
    key : str
        Name of the result in JSON.
    stream : callable
        Texts to results, one for each, in order.
    width : int
        Numbers of a result, for an array.
    kind : str
        Their dtype, as NumPy writes it.
    """
    read: deque[str] = deque()  # texts read ahead of their results: one batch

    def remembered() -> Iterator[str]:
        for text in read_texts(arguments):
            read.append(text)
            yield text

    with open_writer(arguments, plain, key, width, kind) as writer, progress(arguments) as bar:
        for result in stream(remembered()):
            writer.write(read.popleft(), result)
            bar.update()
    return 0


class _Writer(ABC):
    """A file that gets its name when it is closed, complete or interrupted: always with whole records.

    What a link names is replaced, not the link. Standard output, pipes and devices are written as they are.
    """

    def __init__(self, output: str | None) -> None:
        self.count = 0
        self.target: Path | None = None
        self.part: Path | None = None
        self.output = output
        if output and (os.path.isfile(output) or not os.path.exists(output)):
            self.target = Path(os.path.realpath(output))
            self.part = self.target.with_name(f".{self.target.name}.{os.getpid()}.part")

    def __enter__(self) -> Self:
        place = self.part or self.output
        try:
            self.stream: IO[bytes] = open(place, "wb+" if self.part else "wb") if place else sys.stdout.buffer
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"--output: expected a file that can be written, got {self.output!r}: {reason}") from None
        self.finish()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if self.part is None or self.target is None:
            if kind is not None and issubclass(kind, OSError):  # such as a broken pipe
                discard_unwritten(self.stream)
                return
            self.stream.flush()
        else:
            self._name_file(self.part, self.target, keep=kind is None or self.count > 0)
        if kind is not None and self.count:
            complain(f"stopped after {self.count} results, which are written")

    def _name_file(self, part: Path, target: Path, keep: bool) -> None:
        """Complete the file and move it to its place, or remove it: then what stood there stays."""
        try:
            self.finish()
            self.stream.close()
            if keep:
                part.replace(target)
        except OSError:  # such as a full disk
            discard_unwritten(self.stream)
            raise
        finally:
            part.unlink(missing_ok=True)

    @abstractmethod
    def write(self, text: str, result: object) -> None:
        """Write one result."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the records that are counted, and cut off one begun."""


class LineWriter(_Writer):
    """One line or more a result."""

    def __init__(self, output: str | None, render: Callable[[str, Any], str]) -> None:
        super().__init__(output)
        self.render = render
        self.size = 0

    def write(self, text: str, result: object) -> None:
        """Write one result."""
        line = (self.render(text, result) + "\n").encode("utf-8", "replace")
        self.stream.write(line)
        if self.part is None:
            self.stream.flush()
        self.size += len(line)
        self.count += 1

    def finish(self) -> None:
        """Cut off a result begun."""
        if self.part is not None:
            self.stream.truncate(self.size)


class ArrayWriter(_Writer):
    """Rows of one ``.npy`` file; the header is made anew with their number at the end."""

    HEADER = 128  # bytes; a multiple of 64, with room for any number of rows

    def __init__(self, output: str, width: int, kind: str = "<f4") -> None:
        super().__init__(output)
        self.width, self.kind = width, np.dtype(kind)

    def write(self, text: str, result: object) -> None:
        """Write one row."""
        self.stream.write(np.ascontiguousarray(result, self.kind).data)
        self.count += 1

    def finish(self) -> None:
        """Write the header for the rows that are there, and cut off a row begun."""
        self.stream.truncate(self.HEADER + self.kind.itemsize * self.width * self.count)
        self.stream.seek(0)
        entries = f"{{'descr': '{self.kind.str}', 'fortran_order': False, 'shape': ({self.count}, {self.width}), }}"
        length = self.HEADER - 10
        self.stream.write(np.lib.format.magic(1, 0) + length.to_bytes(2, "little"))
        self.stream.write(entries.encode().ljust(length - 1) + b"\n")
        self.stream.seek(0, os.SEEK_END)


def open_writer(
    arguments: argparse.Namespace, plain: Callable[[str, Any], str], key: str, width: int = 0, kind: str = "<f4"
) -> _Writer:
    """Open what `arguments` ask for: lines rendered by `plain`, JSON lines with the result under `key`, or an array."""
    if arguments.format == "npy":
        return ArrayWriter(arguments.output, width, kind)
    if arguments.format == "jsonl":
        return LineWriter(arguments.output, lambda text, result: json.dumps({"text": text, key: _plain(result)}))
    return LineWriter(arguments.output, plain)


def _plain(result: object) -> object:
    return result.tolist() if isinstance(result, np.ndarray) else result
