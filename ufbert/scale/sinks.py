"""Output files: Parquet, JSON lines and NumPy arrays, written in little memory, the same bytes for the same rows."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, shown
from .sources import import_pyarrow

if TYPE_CHECKING:
    from typing import Self

__all__ = ["FORMATS", "ROW_GROUP", "Layout", "Results", "Sink", "arrow_columns", "arrow_type", "open_sink"]

ROW_GROUP = 10_000
"""Rows of a row group of Parquet."""
FORMATS = ("parquet", "npy", "jsonl")


class Results(NamedTuple):
    """What a worker makes of N texts.

    Attributes
    ----------
    columns : dict of str to (N,) or (N, width) array
        float32, or strings as objects.
    failed : dict of int to str
        Rows without a result, and why.
    truncated : int
        Texts that were cut.
    """

    columns: dict[str, NDArray[Any]]
    failed: dict[int, str]
    truncated: int


class Layout(NamedTuple):
    """The columns of an output.

    Attributes
    ----------
    key : str
        The first column: the input's ids, or "row", the number of the row in its file.
    key_type : str
        Type of the first column, such as "int64" or "string".
    widths : dict of str to int
        The results' columns in their order; 0 for one value a row.
    strings : frozenset of str
        Those of the results' columns that are not numbers.
    metadata : dict of str to str
    """

    key: str
    key_type: str
    widths: Mapping[str, int]
    strings: frozenset[str]
    metadata: Mapping[str, str]


class Sink(ABC):
    """A file that takes rows."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.layout = layout
        self.stream: IO[bytes] = open(path, "wb")  # noqa: SIM115 (the sink is one)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
            else:
                self.abandon()
        finally:
            self.stream.close()

    def abandon(self) -> None:  # noqa: B027 (most have nothing to do)
        """Let go of a file that will not be complete."""

    def check(self, keys: Sequence[object]) -> None:
        """Refuse ids of another type, which Arrow would convert: 1.5 to 1."""
        wanted = str if self.layout.key_type == "string" else int
        wrong = next((key for key in keys if key is not None and type(key) is not wanted), None)
        if wrong is not None:
            raise InputError(f"{self.layout.key}: expected ids of type {self.layout.key_type}, found {shown(wrong)}")

    @abstractmethod
    def write(self, keys: Sequence[object], results: Results) -> None:
        """Write N rows."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the file."""


class _Parquet(Sink):
    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        self.pyarrow = import_pyarrow("--format parquet")
        from pyarrow import parquet

        pa = self.pyarrow
        fields = [pa.field(layout.key, _type(layout.key_type))]
        fields += [pa.field(name, arrow_type(name in layout.strings, width)) for name, width in layout.widths.items()]
        self._waiting: list[Any] = []
        self.schema = pa.schema(fields, metadata=dict(layout.metadata))
        dictionary = [name for name, width in layout.widths.items() if name in layout.strings and not width]
        self.writer = parquet.ParquetWriter(
            self.stream,
            self.schema,
            compression="zstd",
            use_dictionary=dictionary or False,
            use_byte_stream_split=[
                f"{name}.list.element" if width else name
                for name, width in layout.widths.items()
                if name not in layout.strings
            ],
            write_statistics=[layout.key],
        )

    def write(self, keys: Sequence[object], results: Results) -> None:
        pa = self.pyarrow
        self.check(keys)
        try:
            first = pa.array(keys, _type(self.layout.key_type))
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            raise InputError(f"{self.layout.key}: expected ids of type {self.layout.key_type}: {error}") from None
        columns = arrow_columns(results, len(keys))
        self._waiting.append(pa.record_batch([first, *columns], schema=self.schema))
        if sum(batch.num_rows for batch in self._waiting) >= ROW_GROUP:
            table = pa.Table.from_batches(self._waiting)
            whole = table.num_rows // ROW_GROUP * ROW_GROUP
            self.writer.write_table(table.slice(0, whole), row_group_size=ROW_GROUP)
            self._waiting = table.slice(whole).combine_chunks().to_batches()

    def finish(self) -> None:
        if self._waiting:
            self.writer.write_table(self.pyarrow.Table.from_batches(self._waiting), row_group_size=ROW_GROUP)
        self.writer.close()

    def abandon(self) -> None:
        with suppress(self.pyarrow.ArrowException, OSError):  # such as a full disk again
            self.writer.close()


class _Jsonl(Sink):
    def write(self, keys: Sequence[object], results: Results) -> None:
        self.check(keys)
        values = {name: column.tolist() for name, column in results.columns.items()}
        for number, key in enumerate(keys):
            row = {self.layout.key: key}
            row |= {name: None if number in results.failed else column[number] for name, column in values.items()}
            self.stream.write(json.dumps(row).encode() + b"\n")

    def finish(self) -> None:
        pass


class _Npy(Sink):
    """One float32 array (rows, width), NaN where there is no result; the header is made anew at the end."""

    HEADER = 128  # bytes; a multiple of 64, with room for any number of rows

    def __init__(self, path: Path, layout: Layout) -> None:
        super().__init__(path, layout)
        self.count = 0
        ((self.name, self.width),) = layout.widths.items()
        self._header()

    def write(self, keys: Sequence[object], results: Results) -> None:
        rows = np.ascontiguousarray(results.columns[self.name], "<f4")
        if results.failed:
            rows[list(results.failed)] = np.nan
        self.stream.write(rows.data)
        self.count += len(keys)

    def finish(self) -> None:
        self.stream.seek(0)
        self._header()

    def _header(self) -> None:
        shape = (self.count, self.width) if self.width else (self.count,)
        entries = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        length = self.HEADER - 10
        self.stream.write(np.lib.format.magic(1, 0) + length.to_bytes(2, "little"))
        self.stream.write(entries.encode().ljust(length - 1) + b"\n")


def arrow_type(strings: bool, width: int) -> Any:
    """Return Arrow's type of a column: of one value a row, or a list of `width` of them."""
    import pyarrow as pa

    kind = pa.string() if strings else pa.float32()
    return pa.list_(kind, width) if width else kind


def arrow_columns(results: Results, count: int) -> list[Any]:
    """Return results as Arrow arrays of `count` rows, null where a row failed."""
    import pyarrow as pa

    mask = np.zeros(count, bool)
    mask[list(results.failed)] = True
    missing = pa.array(mask) if results.failed else None
    arrays = []
    for values in results.columns.values():
        if values.ndim == 1:
            arrays.append(pa.array(values, mask=mask, type=arrow_type(values.dtype == object, 0)))
        else:
            flat = pa.array(values.reshape(-1), type=arrow_type(values.dtype == object, 0))
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=missing))
    return arrays


def _type(name: str) -> Any:
    import pyarrow as pa

    return pa.type_for_alias(name)


def open_sink(path: Path, name: str, layout: Layout) -> Sink:
    """Open a file of the format `name`, one of `FORMATS`."""
    kinds: dict[str, type[Sink]] = {"parquet": _Parquet, "jsonl": _Jsonl, "npy": _Npy}
    return kinds[name](path, layout)
