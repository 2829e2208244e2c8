"""Input files: Parquet, JSON lines and CSV, read row by row in little memory."""

from __future__ import annotations

import csv
import glob
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError, shown

__all__ = ["ENDINGS", "Columns", "Cursor", "Row", "Source", "find_inputs", "import_pyarrow", "open_source"]

BATCH = 128  # rows of a Parquet file that are decoded at a time
BUFFER = 1 << 20  # bytes of a column chunk that are read at a time
MOST_ROWS = 1 << 20  # of a Parquet file for each of its bytes: a million nulls take some hundred
INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
STRINGS = ("string", "large_string", "string_view")


class Columns(NamedTuple):
    """The columns that a job reads: of the texts (two for pairs), and perhaps of ids."""

    texts: tuple[str, ...]
    id: str | None = None

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.texts, *([self.id] if self.id else [])]))


class Row(NamedTuple):
    """One row: its id, None without an id column, and its text, a pair of texts, or whatever else stands there."""

    id: object
    text: object


class Source(ABC):
    """A file with rows. Memory does not grow with their number.

    Attributes
    ----------
    path : Path
    columns : Columns
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path, self.columns = path, columns

    @abstractmethod
    def count(self) -> int:
        """Count the rows."""

    @abstractmethod
    def id_type(self) -> str:
        """Name the type of the ids: an integer type such as "int64", or "string"; "" if the file has no row.

        Raises
        ------
        InputError
            If the ids are of a type that is not carried over.
        """

    @abstractmethod
    def rows(self, first: int = 0) -> Iterator[Row]:
        """Read the rows from number `first` on.

        Raises
        ------
        InputError
            If the file is damaged, or lacks a column.
        """

    def check_names(self, found: list[str]) -> None:
        """Refuse a file that lacks a column, or has two of one name."""
        for name in self.columns.names:
            if found.count(name) != 1:
                raise InputError(
                    f"{self.path}: expected one column {name!r}, found {', '.join(map(repr, found)) or 'none'}"
                )

    def _row(self, values: dict[str, Any]) -> Row:
        texts = tuple(values[name] for name in self.columns.texts)
        return Row(None if self.columns.id is None else values[self.columns.id], texts[0] if len(texts) == 1 else texts)


class Cursor:
    """A place in a source, which moves on; parts that follow each other are read in one go."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stamp = _stamp(source.path)
        self._row, self._rows = 0, source.rows()

    def read(self, first: int, count: int) -> Iterator[Row]:
        """Give `count` rows from number `first` on.

        Raises
        ------
        InputError
            If the file has become another one, or has fewer rows.
        """
        if first != self._row:
            self._row, self._rows = first, self.source.rows(first)
        for row in islice(self._rows, count):
            self._row += 1
            yield row
        if self._row != first + count or _stamp(self.source.path) != self.stamp:
            raise InputError(
                f"{self.source.path}: expected the file as it was when the job began, found it changed; begin anew, "
                "with another output folder"
            )


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


class _Parquet(Source):
    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path, columns)
        self._faults = import_pyarrow(f"{path}: to read Parquet").ArrowException, OSError, UnicodeDecodeError
        from pyarrow import parquet

        with self._reading():
            self._file = parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
            metadata, schema = self._file.metadata, self._file.schema_arrow
            self._types = {field.name: field.type for field in schema}
            self._groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.check_names(schema.names)
        for name in columns.texts:
            if self._plain(name) not in (*STRINGS, "null"):
                raise InputError(f"{path}: {name}: expected a column of strings, found {self._types[name]}; convert it")
        most = MOST_ROWS * path.stat().st_size
        if not all(0 <= rows <= most for rows in self._groups):  # of columns Arrow cannot be asked: it may abort
            raise InputError(
                f"{path}: expected up to {most} rows in a file of this size, found another number; copy it anew"
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Say that the file is damaged, whatever Arrow says of it."""
        try:
            yield
        except self._faults as error:
            raise InputError(f"{self.path}: expected a whole Parquet file, could not read it: {error}") from None

    def _plain(self, name: str) -> str:
        found = self._types[name]
        return str(getattr(found, "value_type", found) if str(found).startswith("dictionary") else found)

    def count(self) -> int:
        return sum(self._groups)

    def id_type(self) -> str:
        assert self.columns.id is not None
        found = self._plain(self.columns.id)
        if found not in (*INTEGERS, *STRINGS):
            raise InputError(f"{self.path}: {self.columns.id}: expected integers or strings, found {found}; convert it")
        return "string" if found in STRINGS else found

    def rows(self, first: int = 0) -> Iterator[Row]:
        group = 0
        while group < len(self._groups) and first >= self._groups[group]:
            first -= self._groups[group]
            group += 1
        names = self.columns.names
        wanted = list(range(group, len(self._groups)))
        with self._reading():
            for batch in self._file.iter_batches(BATCH, row_groups=wanted, columns=names, use_threads=False):
                skipped = min(first, batch.num_rows)
                first -= skipped
                values = [_values(batch.column(name)[skipped:]) for name in names]
                for row in zip(*values, strict=True):
                    yield self._row(dict(zip(names, row, strict=True)))


def _values(column: Any) -> list[object]:
    """Take a column's values; what is not UTF-8 becomes bytes, which are no text."""
    try:
        values: list[object] = column.to_pylist()
        return values
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> object:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return bytes(scalar.as_buffer())


class _Jsonl(Source):
    def count(self) -> int:
        with open(self.path, "rb") as stream:
            return sum(not line.isspace() for line in stream)

    def id_type(self) -> str:
        for row in self.rows():
            if isinstance(row.id, int) and not isinstance(row.id, bool):
                return "int64"
            if isinstance(row.id, str):
                return "string"
            if row.id is not None:
                raise InputError(f"{self.path}: {self.columns.id}: expected integers or strings, found {shown(row.id)}")
        return ""

    def rows(self, first: int = 0) -> Iterator[Row]:
        with open(self.path, "rb") as stream:
            lines = ((number, line) for number, line in enumerate(stream, 1) if not line.isspace())
            for number, line in islice(lines, first, None):
                try:
                    values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
                    raise InputError(f"{self.path}: line {number}: expected JSON in UTF-8: {error}") from None
                if not isinstance(values, dict):
                    raise InputError(f"{self.path}: line {number}: expected a JSON object, found {shown(values)}")
                if self.columns.id is not None and self.columns.id not in values:
                    raise InputError(f"{self.path}: line {number}: expected the key {self.columns.id!r}, found none")
                yield self._row(dict.fromkeys(self.columns.texts) | values)


class _Csv(Source):
    delimiter = ","

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path, columns)
        self._records()
        self.check_names(self._header)

    def count(self) -> int:
        return sum(1 for _ in self._records())

    def id_type(self) -> str:
        return "string"

    def rows(self, first: int = 0) -> Iterator[Row]:
        records = self._records()
        header = self._header
        for number, record in islice(enumerate(records), first, None):
            if len(record) != len(header):
                raise InputError(
                    f"{self.path}: row {number}: expected {len(header)} fields as in the first line, found "
                    f"{len(record)}; quote what has a delimiter in it"
                )
            yield self._row(dict(zip(header, record, strict=True)))

    def _records(self) -> Iterator[list[str]]:
        """Read the header, and give an iterator over the records, empty lines left out."""
        csv.field_size_limit(sys.maxsize)
        records = self._parsed()
        self._header = next(records, [])
        return records

    def _parsed(self) -> Iterator[list[str]]:
        with open(self.path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=self.delimiter, strict=True)
            try:
                yield from filter(None, reader)
            except (csv.Error, UnicodeDecodeError) as error:
                raise InputError(f"{self.path}: after line {reader.line_num}: expected CSV in UTF-8: {error}") from None


class _Tsv(_Csv):
    delimiter = "\t"


ENDINGS: dict[str, type[Source]] = {
    ".parquet": _Parquet, ".pq": _Parquet, ".jsonl": _Jsonl, ".ndjson": _Jsonl, ".csv": _Csv, ".tsv": _Tsv,
}  # fmt: skip
"""Kinds of files by their endings."""


def open_source(path: Path, columns: Columns) -> Source:
    """Open a file by its ending.

    Raises
    ------
    InputError
        If the ending is unknown, or the file lacks a column.
    """
    kind = ENDINGS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: expected a file that ends in {', '.join(ENDINGS)}, got another; convert it")
    return kind(path, columns)


def find_inputs(pattern: str) -> list[Path]:
    """Find the files that a name or a pattern such as ``data/*.parquet`` means, in the order of their names.

    Raises
    ------
    InputError
        If there are none, or one is no regular file.
    """
    found = [pattern] if os.path.lexists(pattern) else glob.glob(pattern, recursive=True)
    paths = sorted(Path(name) for name in found)
    if not paths:
        raise InputError(f"--input: expected files, found none for {pattern!r}; quote a pattern")
    for path in paths:
        if path.is_dir():
            raise InputError(f"{path}: expected a file, found a folder; name files, such as '{path}/*.parquet'")
        if not path.is_file():
            raise InputError(
                f"{path}: expected a regular file, to read it more than once, found a pipe, a device or a broken link"
            )
    return paths


def import_pyarrow(purpose: str) -> Any:
    """Import pyarrow, or say how to install it."""
    try:
        import pyarrow
    except ImportError:
        raise InputError(f"{purpose} needs pyarrow, which is not installed; pip install 'ufbert[parquet]'") from None
    return pyarrow
