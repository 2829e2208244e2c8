"""Hostile inputs of `ufbert embed --input`: Parquet, JSON lines, CSV and plain texts, read alone and by the command."""

import contextlib
import io
import json
import shutil

import numpy as np
import pyarrow as pa
from conftest import write_sentence_model
from files import accepted_or_refused
from folders import scratch
from mutate import TEXTS, VALUES, generator, mutate_bytes, mutate_json, mutate_text
from pyarrow import parquet
from watch import Fault

from ufbert.cli import main
from ufbert.scale.sources import Columns, Cursor, open_source

COLUMN = ["the cat", "", "a b c", "x" * 300, None, "the \u1112\u1161", "cat cat", "a"] * 40
TYPES = [
    pa.int8(), pa.int64(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.null(), pa.binary(),
    pa.large_string(), pa.large_binary(), pa.date32(), pa.timestamp("ns", "UTC"), pa.decimal128(38, 9),
    pa.list_(pa.string()), pa.struct([("text", pa.string())]), pa.dictionary(pa.int32(), pa.string()),
    pa.map_(pa.string(), pa.string()), pa.duration("s"), pa.binary(5),
]  # fmt: skip
WRITING = [
    {"compression": "none"}, {"compression": "snappy"}, {"compression": "zstd"}, {"compression": "gzip"},
    {"compression": "lz4"}, {"compression": "brotli"}, {"use_dictionary": False, "compression": "none"},
    {"data_page_version": "2.0"}, {"row_group_size": 7}, {"data_page_size": 64, "compression": "none"},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED"}},
    {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}},
    {"write_page_checksum": True}, {"store_schema": False}, {"write_page_index": True}, {"version": "1.0"},
]  # fmt: skip


class Rows:
    """Cases on files of rows."""

    def __init__(self):
        self.root = scratch()
        self.model = str(write_sentence_model(self.root / "model"))
        self.tables = [_parquet(_table(pa.string()), **options) for options in WRITING]
        self.tables += [_parquet(_table(pa.string(), id_type=kind)) for kind in (pa.string(), pa.uint8())]
        self.jsonl = [{"text": text, "id": number, "more": [1, {"a": None}]} for number, text in enumerate(COLUMN[:20])]
        self.csv = "text,id\n" + "".join(f'"{text or ""} ""q"", {n}\n2",{n}\n' for n, text in enumerate(COLUMN[:20]))

    def __call__(self, seed, number, acts):
        rng = generator(seed, number)
        ending, content = rng.choice([self.of_parquet] * 3 + [self.of_jsonl, self.of_csv, self.of_texts])(rng)
        file = self.root / f"rows{ending}"
        file.write_bytes(content)
        columns = Columns(("text",), "id" if rng.random() < 0.5 else None)
        if ending == ".txt" or rng.random() < 0.25:
            self.command(rng, file, columns)
        else:
            self.read(rng, file, columns, acts)

    def read(self, rng, file, columns, acts):
        """The reader alone."""
        with accepted_or_refused(acts, file):
            source = open_source(file, columns)
            count = source.count()
            if columns.id is not None:
                source.id_type()
            first = min(rng.choice([0, 0, 1, 150]), count)
            cursor = Cursor(source)
            for _ in cursor.read(first, count - first):
                pass
            if next(cursor.read(count, 1), None) is not None:
                raise Fault(f"{file.suffix}: {count} rows counted, there are more")

    def command(self, rng, file, columns):
        """The command, in this process; its last line names the file if it fails."""
        output = self.root / "out"
        command = ["embed", "--model", self.model, "--input", str(file), "--quiet"]
        if file.suffix == ".txt":
            output = output.with_suffix(rng.choice([".npy", ".jsonl", ".out"]))
        else:
            with_id = ["--id", "id"] if columns.id else []
            form = rng.choice(["parquet", "jsonl"] if columns.id else ["parquet", "npy", "jsonl"])
            command += ["--column", "text", *with_id, "--format", form, "--part-rows", "100"]
            command += ["--on-error", rng.choice(["null", "fail"])]
        try:
            with contextlib.redirect_stderr(io.StringIO()) as said, np.errstate(all="ignore"):
                code = main([*command, "--output", str(output)])
            said, left = said.getvalue(), sorted(path.name for path in self.root.rglob("*.part"))
        finally:
            shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)
        if code not in (0, 1) or (code == 1) != ("error: " in said) or left:
            raise Fault(f"exit code {code}, left {left}: {said[-300:]}")
        if code == 1 and str(file) not in said:
            raise Fault(f"the message names no file: {said[:300]}")
        if len(said) > 6000:
            raise Fault(f"{len(said)} characters: {said[:200]}")

    def of_parquet(self, rng):
        """A file with other bytes, most often in its footer, or with other columns."""
        if rng.random() < 0.15:
            return ".parquet", _parquet(_odd_table(rng), **rng.choice([{}, {"row_group_size": 3}]))
        content = rng.choice(self.tables)
        kind = rng.random()
        if kind < 0.5:
            footer = int.from_bytes(content[-8:-4], "little") + 8
            head, tail = content[:-footer], content[-footer:]
            return ".parquet", head + _flip(tail, rng)
        if kind < 0.7:
            return ".parquet", _flip(content, rng)
        if kind < 0.8:  # the end of one file behind another
            other = rng.choice(self.tables)
            cut = rng.randint(0, len(content))
            return ".parquet", content[:cut] + other[rng.choice([cut, rng.randint(0, len(other))]) :]
        if kind < 0.9:
            length = rng.choice([0, 1, 2**31 - 1, 2**32 - 1, len(content), rng.randrange(2**32)]).to_bytes(4, "little")
            return ".parquet", content[:-8] + length + rng.choice([b"PAR1", b"PARE", b"PAR2"])
        return ".parquet", mutate_bytes(content, rng)

    def of_jsonl(self, rng):
        """Lines with other values, or other lines."""
        lines = [json.dumps(row).encode() for row in self.jsonl]
        for _ in range(rng.randint(1, 3)):
            where = rng.randrange(len(lines))
            new = json.dumps(mutate_json(rng.choice(self.jsonl), rng)).encode()
            odd = [
                b"[" * 50_000,
                b"\xff",
                b"1" * 9_000,
                b'{"text": 1e999, "id": NaN}',
                b'{"text": "a", "text": 1}',
                b"",
            ]
            lines[where] = rng.choice([new, new, mutate_bytes(lines[where], rng), rng.choice(odd), lines[where][:9]])
        return rng.choice([".jsonl", ".ndjson"]), rng.choice([b"\n", b"\r\n", b"\n\n", b"\0", b"\r"]).join(lines)

    def of_csv(self, rng):
        """A table with other fields, quotes, delimiters or bytes."""
        lines = self.csv.split("\n")
        for _ in range(rng.randint(1, 4)):
            where = rng.randrange(len(lines))
            piece = rng.choice(['"', ",", '""', "\0", "\r", "\t", "text", *TEXTS])
            at = rng.randint(0, len(lines[where]))
            lines[where] = rng.choice([lines[where][:at] + piece + lines[where][at:], mutate_text(lines[where], rng)])
        content = "\n".join(lines).encode(rng.choice(["utf-8"] * 6 + ["utf-16", "utf-8-sig"]), "surrogatepass")
        return rng.choice([".csv", ".csv", ".tsv"]), mutate_bytes(content, rng) if rng.random() < 0.3 else content

    def of_texts(self, rng):
        """Lines of texts."""
        pieces = [
            rng.choice([*TEXTS, "the cat", "\r", "\x85", "\u2028", "##a", "\ufeff"]) for _ in range(rng.randint(0, 9))
        ]
        content = rng.choice(["\n", "\r\n", ""]).join(pieces).encode("utf-8", rng.choice(["surrogatepass", "replace"]))
        return ".txt", mutate_bytes(content, rng) if rng.random() < 0.5 else content


def _flip(data, rng):
    """Some bytes changed; the length stays, so that offsets still mean something."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        where = rng.randrange(len(data))
        data[where] = rng.choice([rng.randrange(256), 0, 255, 0x7F, 0x80, data[where] ^ (1 << rng.randrange(8))])
    return bytes(data)


def _table(text_type, id_type=None):
    ids = pa.array(range(len(COLUMN) // 2), pa.int64())
    ids = pa.concat_arrays([ids, ids]).cast(id_type or pa.int64())
    return pa.table({"text": pa.array(COLUMN, text_type), "id": ids, "more": pa.array([[1, 2]] * len(COLUMN))})


def _odd_table(rng):
    """Columns of any type, under any names."""
    names = [rng.choice(["text", "text", "id", "Text", "", "text.id", *TEXTS[:5]]) for _ in range(rng.randint(0, 4))]
    arrays = []
    for _ in names:
        kind = rng.choice(TYPES)
        values = [rng.choice(VALUES) for _ in range(9)]
        try:
            arrays.append(
                pa.array(values[: rng.randint(0, 9)], kind) if rng.random() < 0.2 else pa.array([None] * 9, kind)
            )
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            arrays.append(pa.nulls(9, kind))
    length = min(map(len, arrays), default=0)
    names = [name.encode("utf-8", "replace").decode() for name in names]
    return pa.Table.from_arrays([array[:length] for array in arrays], names)


def _parquet(table, **options):
    stream = io.BytesIO()
    try:
        parquet.write_table(table, stream, **options)
    except (pa.ArrowException, OSError):  # a type that Parquet does not have
        parquet.write_table(_table(pa.string()).slice(0, 3), stream)
    return stream.getvalue()
