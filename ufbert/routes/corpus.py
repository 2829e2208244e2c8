"""A corpus: one text a line, in a file that may be compressed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

from ..errors import InputError, shown

__all__ = ["Corpus"]

MAX_LINE = 2**24  # bytes: what stands between a corpus and the memory


class Corpus:
    """The texts of a file, read anew by every loop and never held as a whole.

    Parameters
    ----------
    path : str or path
        Plain UTF-8 text, or compressed by xz (``.xz``) or gzip (``.gz``); one text a line, empty lines do not count.
        "-" for standard input, which can be read once.
    max_texts : int, optional
        Only the first texts.

    Raises
    ------
    InputError
        If there is no such file; while reading, if it is damaged, not UTF-8, or has a line of more than 16 MB.
    """

    def __init__(self, path: str | os.PathLike[str], max_texts: int | None = None) -> None:
        try:
            usable = path == "-" or (os.path.exists(path) and not os.path.isdir(path))
        except (TypeError, ValueError):  # not a path at all
            usable = False
        if not usable:
            raise InputError(f"corpus: expected a file of texts, one a line, got {shown(path)}; check its name")
        self.path, self.max_texts = path, max_texts
        self.name = "standard input" if path == "-" else str(path)

    @property
    def is_file(self) -> bool:
        """Whether it can be read more than once."""
        return self.path != "-" and os.path.isfile(self.path)

    def __iter__(self) -> Iterator[str]:
        return islice(self._texts(), self.max_texts)

    def _texts(self) -> Iterator[str]:
        for number, line in enumerate(self._lines(), 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                fault = f"line {number}: expected UTF-8, found {error.reason}"
                raise InputError(f"{self.name}: {fault}; convert it") from None
            if text:
                yield text

    def _lines(self) -> Iterator[bytes]:
        opened, faults = _opener(self.path)
        try:
            with opened() as stream:
                while line := stream.readline(MAX_LINE + 1):
                    if len(line) > MAX_LINE:
                        raise InputError(
                            f"{self.name}: expected one text a line, found one of more than {MAX_LINE} bytes; split it"
                        )
                    yield line
        except faults as error:
            fault = getattr(error, "strerror", None) or error or type(error).__name__
            raise InputError(f"{self.name}: expected a readable file, found a fault: {fault}; copy it anew") from None


def _opener(path: str | os.PathLike[str]) -> tuple[Callable[[], IO[bytes]], tuple[type[Exception], ...]]:
    """What opens a file for reading, and what it raises where the file is damaged."""
    if path == "-":
        if sys.stdin is None:
            raise InputError("standard input: expected texts, found it closed; open it, or give a file")
        return lambda: sys.stdin.buffer, (OSError,)
    ending = Path(path).suffix
    if ending == ".xz":
        import lzma

        return lambda: lzma.open(path, "rb"), (OSError, EOFError, lzma.LZMAError)
    if ending == ".gz":
        import gzip
        import zlib

        return lambda: gzip.open(path, "rb"), (OSError, EOFError, zlib.error)  # type: ignore[return-value]
    return lambda: open(path, "rb"), (OSError,)
