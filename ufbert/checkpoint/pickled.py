"""Tensors from a file of ``torch.save``: an interpreter of the few pickle instructions that tensors are written with.

It builds numbers, texts, tuples, lists, dicts and tensors, and nothing else. A name in the file is compared with a
fixed list and never looked up; nothing is imported, and nothing that the file names is called. Only `ufbert.convert`
reads such files.
"""

from __future__ import annotations

import math
import mmap
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import CheckpointError, shown
from .tensors import DTYPES, Tensor
from .writing import check_regular

__all__ = ["read_pickled"]

MAX_PICKLE = 2**26  # bytes of instructions; a thousand tensors take 100,000
MAX_AXES = 8
MOST_SHARED = 4  # bytes of all tensors by bytes of the file: tied tensors lie in it once
STORAGES = {
    "torch DoubleStorage": "F64",
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch LongStorage": "I64",
    "torch IntStorage": "I32",
    "torch ShortStorage": "I16",
    "torch CharStorage": "I8",
    "torch ByteStorage": "U8",
    "torch BoolStorage": "BOOL",
}
ORDERED_DICT = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
PARAMETER = "torch._utils _rebuild_parameter"
NAMES = (*STORAGES, ORDERED_DICT, TENSOR, PARAMETER)
VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], object]] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
BUILDING = ("GLOBAL", "BINPERSID", "REDUCE", "BUILD")
ARGUMENTS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE")


Kind = TypeVar("Kind")


class _Fault(Exception):
    """What is wrong with a file: expected ..., found ..."""


FAULTS = (
    _Fault, zipfile.BadZipFile, struct.error, OSError, EOFError,
    ArithmeticError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What reading a damaged file may raise."""


class _Name(NamedTuple):
    """A name in the file that is on the list."""

    text: str


class _Storage(NamedTuple):
    """Numbers of one dtype in a row."""

    dtype: str
    length: int
    data: memoryview


class _View(NamedTuple):
    """A tensor: a part of a storage."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


def read_pickled(file: Path) -> Iterator[Tensor]:
    """Read a state dict that ``torch.save`` has written: names to tensors.

    Parameters
    ----------
    file : Path
        In the format of torch 1.6 and later, a zip archive.

    Yields
    ------
    Tensor
        A view of the file, or a copy where a tensor is not contiguous.

    Raises
    ------
    CheckpointError
        If the file is faulty, or has anything else in it than tensors.
    """
    size = check_regular(file)
    try:
        with open(file, "rb") as stream, zipfile.ZipFile(stream) as archive:
            records = _records(archive, memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
        found = _Machine(records).run()
        if not isinstance(found, dict) or not all(type(name) is str for name in found):
            raise _Fault(f"names with tensors, found {type(found).__name__}")
        for name, tensor in found.items():
            if not isinstance(tensor, _View):
                raise _Fault(f"tensors alone, found {type(tensor).__name__} under {shown(name)}")
        if sum(len(tensor.data) for tensor in found.values()) > MOST_SHARED * size:
            raise _Fault(f"at most {MOST_SHARED} times the tensors that the file has room for, found more")
    except FAULTS as error:
        what = (
            str(error)
            if isinstance(error, _Fault)
            else f"a whole archive of torch 1.6 or later, found a fault: {error}"
        )
        raise CheckpointError(
            f"{file}: expected {what}; ufbert reads tensors from such a file and nothing else: save the model's "
            "state_dict anew, as safetensors or with a newer torch"
        ) from None
    for name, tensor in found.items():
        yield Tensor(name, file, tensor.dtype, tensor.shape, tensor.data)


def _records(archive: zipfile.ZipFile, content: memoryview) -> dict[str, memoryview]:
    """Find the members of an archive, each stored as it is, by their names inside its only folder."""
    records: dict[str, memoryview] = {}
    for member in archive.infolist():
        folder, _, name = member.filename.partition("/")
        if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
            raise _Fault(f"members that are stored as they are, found {shown(member.filename)} compressed or encrypted")
        if not folder or name in records:
            raise _Fault(f"one folder with one member of each name, found another {shown(member.filename)}")
        header = content[member.header_offset : member.header_offset + 30]
        if bytes(header[:4]) != b"PK\3\4":
            raise _Fault(f"a header before {shown(member.filename)}, found other bytes")
        start = member.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        records[name] = content[start : start + member.file_size]
        if len(records[name]) != member.file_size:
            raise _Fault(f"{member.file_size} bytes of {shown(member.filename)}, found {len(records[name])}")
    if bytes(records.get("byteorder", b"little")) != b"little":
        raise _Fault("little-endian numbers, found big-endian ones")
    if "data.pkl" not in records or len(records["data.pkl"]) > MAX_PICKLE:
        raise _Fault(f"data.pkl of at most {MAX_PICKLE} bytes, it is missing or longer")
    return records


@dataclass
class _Machine:
    """A pickle's stack, marks and memo."""

    records: dict[str, memoryview]
    stack: list[object] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[object, object] = field(default_factory=dict)

    def run(self) -> object:
        """Follow the instructions to the end; return what is on the stack then."""
        for instruction, argument, _ in pickletools.genops(bytes(self.records["data.pkl"])):
            name = instruction.name
            if name == "STOP":
                break
            if name in ARGUMENTS:
                self.stack.append(argument)
            elif name in VALUES:
                self.stack.append(VALUES[name])
            elif name in EMPTY:
                self.stack.append(EMPTY[name]())
            elif name in TUPLES:
                self.stack.append(tuple(self.popped(len(self.stack) - TUPLES[name])))
            elif name in BUILDING:
                self.build(name, argument)
            elif name != "PROTO":
                self.arrange(name, argument)
        if len(self.stack) != 1 or self.marks:
            raise _Fault(f"one value at the end, found {len(self.stack)}")
        return self.stack.pop()

    def arrange(self, name: str, argument: object) -> None:
        """Follow an instruction that puts values together, or away."""
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "TUPLE":
            self.stack.append(tuple(self.popped(self.marks.pop())))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.top(object)
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("SETITEM", "SETITEMS"):
            self.set_items(self.popped(self.marks.pop() if name == "SETITEMS" else len(self.stack) - 2))
        elif name in ("APPEND", "APPENDS"):
            items = self.popped(self.marks.pop() if name == "APPENDS" else len(self.stack) - 1)
            self.top(list).extend(items)
        else:
            raise _Fault(f"instructions that build tensors, found {name}")

    def build(self, name: str, argument: object) -> None:
        """Follow an instruction that makes a tensor or a part of it."""
        if name == "GLOBAL":
            self.stack.append(_known(str(argument)))
        elif name == "BINPERSID":
            self.stack.append(self.storage(self.pop(tuple)))
        elif name == "REDUCE":
            arguments = self.pop(tuple)
            self.stack.append(_built(self.pop(_Name).text, arguments))
        else:  # BUILD: what a state dict says of versions
            self.pop(dict)
            self.top(dict)

    def popped(self, start: int) -> list[object]:
        """Take everything from a place of the stack on, which no mark may stand behind."""
        if start < (self.marks[-1] if self.marks else 0) or start > len(self.stack):
            raise _Fault("as many values as an instruction takes, found fewer")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop(self, kind: type[Kind]) -> Kind:
        """Take the last value, which must be of a type."""
        (item,) = self.popped(len(self.stack) - 1)
        return _of(kind, item)

    def top(self, kind: type[Kind]) -> Kind:
        """Return the last value, which must be of a type, and leave it there."""
        item = self.pop(object)
        self.stack.append(item)
        return _of(kind, item)

    def set_items(self, items: list[object]) -> None:
        """Put names and values into the dict on the stack."""
        names = items[::2]
        if len(items) % 2 or not all(type(name) in (str, int) for name in names):
            raise _Fault("names with values, found something else")
        self.top(dict).update(zip(names, items[1::2], strict=True))

    def storage(self, name: tuple[object, ...]) -> _Storage:
        """Find the numbers that a persistent id names: ("storage", class, key, place, count)."""
        if len(name) != 5 or name[0] != "storage":
            raise _Fault("the persistent id of a storage, found another")
        dtype, key, count = STORAGES.get(_of(_Name, name[1]).text), _of(str, name[2]), _count(name[4])
        if dtype is None:
            raise _Fault(f"a storage, found {_of(_Name, name[1]).text}")
        data, expected = self.records.get("data/" + key), count * np.dtype(DTYPES[dtype]).itemsize
        if data is None or len(data) != expected:
            raise _Fault(f"{expected} bytes of data/{shown(key)}, found {'none' if data is None else len(data)}")
        return _Storage(dtype, count, data)


def _known(name: str) -> _Name:
    if name not in NAMES:
        raise _Fault(
            f"tensors alone, found the name {shown(name.replace(' ', '.'))}, which is neither imported nor called"
        )
    return _Name(name)


def _built(name: str, arguments: tuple[object, ...]) -> object:
    """Do what one of the known names stands for."""
    if name == ORDERED_DICT and not arguments:
        return {}
    if name == PARAMETER and arguments:
        return _of(_View, arguments[0])
    if name == TENSOR and len(arguments) >= 4:
        storage, offset, shape, strides = arguments[:4]
        axes = [tuple(map(_count, _of(tuple, numbers))) for numbers in (shape, strides)]
        return _view(_of(_Storage, storage), _count(offset), *axes)
    raise _Fault(f"arguments of {name.replace(' ', '.')}, found {len(arguments)} of others")


def _view(storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> _View:
    """Cut a tensor out of a storage."""
    dtype, room, data = storage
    if len(shape) != len(strides) or len(shape) > MAX_AXES:
        raise _Fault(f"a shape of at most {MAX_AXES} axes with a stride for each, found {len(shape)}, {len(strides)}")
    count, size = math.prod(shape), np.dtype(DTYPES[dtype]).itemsize
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if count > room or (count and last >= room):
        raise _Fault(f"a tensor inside its storage of {room} numbers, found the shape {shown(shape)}")
    if not count or _is_contiguous(shape, strides):
        return _View(dtype, shape, data[offset * size : (offset + count) * size])
    behind = np.frombuffer(data, DTYPES[dtype])[offset:]
    parts = np.lib.stride_tricks.as_strided(behind, shape, [stride * size for stride in strides])
    return _View(dtype, shape, np.ascontiguousarray(parts).data.cast("B"))


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise _Fault(f"a number from 0, found {shown(value)}")
    return value


def _of(kind: type[Kind], value: object) -> Kind:
    """Return a value that is of a type, and of none derived from it."""
    if kind is not object and type(value) is not kind:
        raise _Fault(f"a {kind.__name__.strip('_').lower()}, found a {type(value).__name__.strip('_').lower()}")
    return value  # type: ignore[return-value]
