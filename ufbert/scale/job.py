"""A job over files: its parts, what it was begun with, and what of it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from .. import isa
from ..checkpoint.folder import ModelFolder
from ..checkpoint.names import default_folder
from ..checkpoint.writing import whole_file
from ..errors import InputError, shown
from ..precision import automatic
from .sinks import Layout
from .sources import Columns, find_inputs, open_source
from .worker import Settings, Worker

__all__ = ["PART_ROWS", "Input", "Job", "Part", "Shard", "plan"]

PART_ROWS = 100_000
"""Rows of one output file at most: what a kill may cost."""
JOB, RECORDS, MANIFEST = "_job.json", "_parts", "_manifest.json"
BLOCK = 1 << 18
WHOLE = 16  # blocks; of larger files as many are read, evenly spaced, because every shard does it for all files
DEFAULTS = {"classify": "sentiment"}


class Input(NamedTuple):
    """One input file: its path, its name below the folder that all inputs share, its size, digest and rows."""

    path: Path
    name: str
    bytes: int
    sha256: str
    rows: int


class Part(NamedTuple):
    """Rows of one input that become one output file."""

    number: int
    input: Input
    first: int
    rows: int


class Shard(NamedTuple):
    """Which of so many machines this is, from 1: it takes every `machines`-th part."""

    number: int = 1
    machines: int = 1


@dataclass(frozen=True)
class Job:
    """All that the bytes of the output depend on.

    Attributes
    ----------
    output : Path
        The folder.
    settings : Settings
    columns : Columns
    format : {"parquet", "npy", "jsonl"}
    part_rows : int
    inputs : tuple of Input
    id_type : str
        Of the id column; "" without one.
    version : str
        Of ufbert.
    model : dict
        Name and digests of the model.
    instruction_set : str
    """

    output: Path
    settings: Settings
    columns: Columns
    format: str
    part_rows: int
    inputs: tuple[Input, ...]
    id_type: str
    version: str
    model: Mapping[str, str]
    instruction_set: str

    @cached_property
    def parts(self) -> list[Part]:
        """All parts in their order; a file without rows has one, which is empty."""
        return [Part(number, *part) for number, part in enumerate(_cut(self.inputs, self.part_rows))]

    def shard(self, shard: Shard) -> list[Part]:
        """Return the parts of one shard."""
        return self.parts[shard.number - 1 :: shard.machines]

    def file(self, part: Part) -> Path:
        """Return where a part's output goes."""
        return self.output / f"part-{part.number:05d}.{self.format}"

    def layout(self, part: Part, worker: Worker) -> Layout:
        """Return the columns of a part's output."""
        metadata = {
            "model": self.model["name"],
            "model_sha256": self.model["sha256"],
            "dtype": self.settings.dtype,
            "instruction_set": self.instruction_set,
            "version": self.version,
            "task": self.settings.task,
            "input": part.input.name.encode("utf-8", "backslashreplace").decode(),  # names need not be UTF-8
            "first_row": str(part.first),
        }
        if self.settings.task == "embed":
            metadata["normalized"] = str(worker.normalized).lower()
        key = (self.columns.id, self.id_type or "string") if self.columns.id else ("row", "int64")
        named = {f"ufbert.{name}": value for name, value in metadata.items()}
        return Layout(*key, worker.widths, worker.strings, named)

    def record(self, part: Part) -> dict[str, Any] | None:
        """Return what is written about a finished part; None if it is not finished."""
        try:
            found: dict[str, Any] = json.loads(self._record_file(part).read_text())
            return found if self.file(part).stat().st_size == found["bytes"] else None
        except (OSError, ValueError, KeyError):
            return None

    def write_record(self, part: Part, record: Mapping[str, Any]) -> None:
        """Say that a part is finished."""
        self._record_file(part).parent.mkdir(exist_ok=True)
        _write_json(self._record_file(part), record)

    def _record_file(self, part: Part) -> Path:
        return self.output / RECORDS / f"{part.number:05d}.json"

    def begin(self, shard: Shard, resume: bool) -> None:
        """Make the output folder, or check that it belongs to this job.

        Raises
        ------
        InputError
            If the folder is of another job, which is named, or has other files in it, or, without `resume`, parts
            that are finished.
        """
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            names = os.listdir(self.output)
        except OSError as error:
            raise InputError(f"--output: expected a folder, got {str(self.output)!r}: {error.strerror}") from None
        if JOB not in names:
            # Another shard may be writing it now, or was killed while it did.
            if others := [name for name in names if not name.startswith(f".{JOB}.")]:
                raise InputError(
                    f"--output: expected a new or empty folder, or one of this command, found {shown(min(others))} in "
                    f"{self.output}; choose another"
                )
            _write_json(self.output / JOB, self._described())
        self._compare()
        done = sum(self.record(part) is not None for part in self.shard(shard))
        if done and not resume:
            raise InputError(
                f"--output: found {done} finished parts in {self.output}; go on with --resume, or choose another"
            )

    def _described(self) -> dict[str, Any]:
        """Describe the job in JSON, without where its files are."""
        settings = asdict(self.settings)
        del settings["model"]
        return {
            "version": self.version,
            **settings,
            "model": dict(self.model),
            "instruction_set": self.instruction_set,
            "column": list(self.columns.texts),
            "id": self.columns.id,
            "id_type": self.id_type,
            "format": self.format,
            "part_rows": self.part_rows,
            "input": {file.name: dict(zip(file._fields[2:], file[2:], strict=True)) for file in self.inputs},
        }

    def _compare(self) -> None:
        begun, now = _flat(read_job(self.output)), _flat(json.loads(json.dumps(self._described())))
        for name in [*begun, *(name for name in now if name not in begun)]:
            was, is_ = begun.get(name, "nothing"), now.get(name, "nothing")
            if was != is_:
                advice = " (UFBERT_ISA chooses it)" if name == "instruction_set" else ""
                raise InputError(
                    f"{self.output}: {name}: expected {shown(was)}, with which this output was begun, got "
                    f"{shown(is_)}; use the same again{advice}, or another --output"
                )

    def finish(self) -> bool:
        """Write the manifest if all parts of all shards are finished; return whether they are."""
        listed = os.listdir(self.output / RECORDS) if (self.output / RECORDS).exists() else []
        if len(listed) < len(self.parts):  # the common case, without reading them all
            return False
        found = [record for part in self.parts if (record := self.record(part)) is not None]
        if len(found) < len(self.parts):
            return False
        for left in (*self.output.glob(f".{JOB}.*.part"), *(self.output / RECORDS).glob(".*.part")):  # of killed runs
            left.unlink(missing_ok=True)
        totals = {key: sum(record[key] for record in found) for key in ("rows", "failed", "truncated", "bytes")}
        _write_json(self.output / MANIFEST, {"job": self._described(), **totals, "parts": found})
        return True


def read_job(output: Path) -> dict[str, Any]:
    """Read what an output folder was begun with.

    Raises
    ------
    InputError
        If it does not say so.
    """
    try:
        found: dict[str, Any] = json.loads((output / JOB).read_text())
        found["input"].items()
        return found
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{output / JOB}: expected the description of a job: {error}; choose another folder") from None


def plan(
    pattern: str, columns: Columns, output: Path, settings: Settings, format: str, part_rows: int, version: str
) -> Job:
    """Look at the input files and the model, and cut the rows into parts.

    Raises
    ------
    InputError
        If a file, a column or the model is not usable.
    """
    paths = find_inputs(pattern)
    common = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    known = read_job(output)["input"] if (output / JOB).exists() else {}
    inputs: list[Input] = []
    kinds: dict[str, Path] = {}
    for path in paths:
        name = path.absolute().relative_to(common).as_posix()
        size, digest = path.stat().st_size, _digest(path)
        source = open_source(path, columns)
        before = known.get(name, {})
        counted = before.get("rows") if (before.get("bytes"), before.get("sha256")) == (size, digest) else None
        inputs.append(Input(path, name, size, digest, source.count() if counted is None else counted))
        if columns.id is not None and (kind := source.id_type()):
            kinds.setdefault(kind, path)
    if len(kinds) > 1:
        found = ", ".join(f"{kind} in {path}" for kind, path in kinds.items())
        raise InputError(f"{columns.id}: expected ids of one type in all files, found {found}; convert them")
    folder = ModelFolder(settings.model or default_folder(DEFAULTS.get(settings.task))).complete()
    if settings.dtype == "auto":  # is settled here, for all machines
        task = None if settings.task == "embed" else "sequence-classification"
        chosen = automatic(folder.transformer().config(task is None, task).feed_forward)
        settings = replace(settings, dtype=chosen.dtype)
    described = _model(folder, settings)
    return Job(
        output, settings, columns, format, part_rows, tuple(inputs), next(iter(kinds), ""), version, described,
        isa.active_isa(),
    )  # fmt: skip


def _model(folder: ModelFolder, settings: Settings) -> dict[str, str]:
    """Name a model, and digest what it computes with."""
    path = folder.path
    small = sha256()
    for file in sorted(path.rglob("*")):
        if file.suffix in (".json", ".txt", ".model") and file.is_file():
            small.update(file.relative_to(path).as_posix().encode() + b"\0" + file.read_bytes())
    name = path.resolve().name if settings.model is None or os.path.exists(settings.model) else settings.model
    return {"name": name, "sha256": folder.transformer().sha256(), "settings_sha256": small.hexdigest()}


def _cut(inputs: Sequence[Input], rows: int) -> Iterator[tuple[Input, int, int]]:
    for file in inputs:
        for first in range(0, max(file.rows, 1), rows):
            yield file, first, min(rows, file.rows - first)


def _digest(path: Path) -> str:
    """Digest a file: all of it, or of a large one its size and blocks that are evenly spaced."""
    size = path.stat().st_size
    blocks = -(-size // BLOCK)
    places = range(blocks) if blocks <= WHOLE else [blocks * k // (WHOLE - 1) for k in range(WHOLE - 1)] + [blocks - 1]
    digest = sha256(str(size).encode())
    with open(path, "rb") as stream:
        for place in places:
            stream.seek(place * BLOCK)
            digest.update(stream.read(BLOCK))
    return digest.hexdigest()


def _flat(value: object, name: str = "") -> dict[str, object]:
    """Name every leaf of nested objects: {"a": {"b": 1}} to {"a.b": 1}."""
    if not isinstance(value, dict):
        return {name: value}
    found: dict[str, object] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else key)
    return found


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n")
