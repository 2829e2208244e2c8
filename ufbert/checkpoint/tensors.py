"""Safetensors files as float32 arrays: mapped where the dtype allows, F16, BF16 and I8 widened.

The ``safetensors`` library validates a file (sizes, offsets, overlaps, dtypes); the arrays are then views of a map of
it, which processes on one machine share.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..bfloat16 import narrow_bfloat16, widen_bfloat16
from ..errors import CheckpointError, InputError, shown
from ..int8 import Int8Matrix
from ..stored import StoredMatrix
from .writing import check_regular

__all__ = [
    "COLUMNS",
    "DTYPES",
    "SCALE",
    "Stored",
    "Table",
    "Tensor",
    "Tensors",
    "encoded",
    "narrow_bfloat16",
    "read_safetensors",
    "widen_bfloat16",
    "write_tensors",
]

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64}
_OTHERS = {"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}
DTYPES = _DTYPES | _OTHERS
"""Dtypes, in the format's words, and NumPy's of the same size; BF16 as its bits."""


SCALE = ".scale"
"""Behind the name of an I8 matrix: the factors of its rows."""

COLUMNS = ".columns"
"""Behind the name of an I8 matrix: factors of its columns, where it has any."""

Table = np.ndarray | Int8Matrix
Stored = dict[str, tuple[str, np.ndarray]]
"""Names to dtypes, in the format's words, and values."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor of a file, not yet read."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    scale: Tensor | None = None  # the factor of each row of a matrix in 8 bits
    columns: Tensor | None = None  # and of each column, where there are any

    @property
    def is_floating(self) -> bool:
        """Whether `float32` can be asked for."""
        return self.dtype in _DTYPES or self.scale is not None

    def array(self) -> np.ndarray:
        """Return it in its own dtype (BF16 as uint16), a view of the file."""
        dtype = DTYPES.get(self.dtype)
        if dtype is None:
            raise CheckpointError(
                f"{self.file}: tensor {self.name}: expected a dtype among {', '.join(DTYPES)}, "
                f"found {self.dtype}; convert it to one of them"
            )
        array: np.ndarray = np.frombuffer(self.data, dtype).reshape(self.shape)
        return array if array.flags.aligned else array.copy()

    def stored(self) -> Stored:
        """Return it, and the scale of I8, as they are: names to dtypes and values, for `write_tensors`."""
        factors = [tensor.stored() for tensor in (self.scale, self.columns) if tensor]
        return {self.name: (self.dtype, self.array())} | {name: one for some in factors for name, one in some.items()}

    def table(self) -> Table:
        """Return F16 or I8 as it is, a view of the file whose rows can be widened as they are looked up."""
        return self.array() if self.scale is None else self._in_8_bits(self.scale)

    def matrix(self) -> Int8Matrix | StoredMatrix:
        """Return a matrix as it is, for the kernels to pack; of F64 as float32."""
        if self.scale is not None:
            return self._in_8_bits(self.scale)
        return StoredMatrix((self.array() if self.dtype in ("F32", "F16", "BF16") else self.float32(),))

    def _in_8_bits(self, scale: Tensor) -> Int8Matrix:
        return Int8Matrix(self.array(), scale.float32(), self.columns.float32() if self.columns else None)

    def float32(self) -> np.ndarray:
        """Return it as float32: a view of the file for F32, else a copy.

        Raises
        ------
        CheckpointError
            If it is not floating-point, or a value of F64 is beyond float32.
        """
        if not self.is_floating:
            raise CheckpointError(
                f"{self.file}: tensor {self.name}: expected dtype {', '.join(_DTYPES)}, or I8 with a tensor "
                f"{self.name}{SCALE}, found {self.dtype}; are config.json and weights of the same model?"
            )
        array = self.array()
        if self.scale is not None:
            return self.table()[:]
        return widen_bfloat16(array) if self.dtype == "BF16" else self.narrowed(array, np.float32)

    def narrowed(self, values: np.ndarray, dtype: type[np.floating]) -> np.ndarray:
        """Return its values in another dtype.

        Raises
        ------
        CheckpointError
            If a finite value would become infinite.
        """
        with np.errstate(over="ignore"):
            result: np.ndarray = values.astype(dtype, copy=False)
        if values.itemsize > result.itemsize:
            lost = np.isinf(result) & np.isfinite(values)
            if lost.any():
                raise CheckpointError(
                    f"{self.file}: tensor {self.name}: expected values up to {np.finfo(dtype).max:g} for "
                    f"{np.dtype(dtype)}, found {np.abs(values[lost]).max():g}; bfloat16 reaches as far as float32"
                )
        return result


class Tensors:
    """The tensors of all weight files of a model, by name.

    Parameters
    ----------
    files : mapping of path to list of str
        The files, each with names that an index promises.
    read : callable, optional
        Opens a file; by default one of safetensors.

    Raises
    ------
    CheckpointError
        If a file is not valid, two files have a tensor of one name, or none has one that is promised.
    """

    def __init__(
        self, files: Mapping[Path, Sequence[str]], read: Callable[[Path], Iterator[Tensor]] | None = None
    ) -> None:
        self._tensors: dict[str, Tensor] = {}
        for file in files:
            for tensor in (read or read_safetensors)(file):
                if tensor.name in self._tensors:
                    other = self._tensors[tensor.name].file
                    raise CheckpointError(f"{file}: tensor {tensor.name}: expected one, found another in {other}")
                self._tensors[tensor.name] = tensor
        for file, promised in files.items():
            for name in promised:
                if name not in self._tensors:
                    raise CheckpointError(
                        f"{file}: tensor {shown(name)}: expected it from the index beside it, it is missing; copy all "
                        "files of the model anew"
                    )
        for name in [name for name in self._tensors if name + SCALE in self._tensors]:
            if self._tensors[name].dtype == "I8":
                columns = self._tensors.pop(name + COLUMNS, None)
                self._tensors[name] = _scaled(self._tensors[name], self._tensors.pop(name + SCALE), columns)
        first = next(iter(files))
        self.where = first if len(files) == 1 else first.parent
        self.taken: set[str] = set()
        self.inherited: set[str] = set()

    def fill_from(self, base: Tensors, names: Mapping[str, str]) -> None:
        """Take over from a base model what is not here: its names to ours; what it has besides does not matter."""
        for name, own_name in names.items():
            if name in base and own_name not in self:
                tensor = base.tensor(name)
                scale = tensor.scale and replace(tensor.scale, name=own_name + SCALE)
                columns = tensor.columns and replace(tensor.columns, name=own_name + COLUMNS)
                self._tensors[own_name] = replace(tensor, name=own_name, scale=scale, columns=columns)
                self.inherited.add(own_name)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._tensors)

    def tensor(self, name: str) -> Tensor:
        """Return a tensor, unread.

        Raises
        ------
        CheckpointError
            If there is none of that name.
        """
        if name not in self._tensors:
            raise CheckpointError(
                f"{self.where}: tensor {name}: expected it from config.json, it is missing "
                f"among {len(self._tensors)} tensors ({', '.join(list(self._tensors)[:3])}, ...); "
                "are config.json and weights of the same model?"
            )
        return self._tensors[name]

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return a tensor as float32 and note that it was used.

        Parameters
        ----------
        name : str
        shape : tuple of int
            What the configuration says.

        Raises
        ------
        CheckpointError
            If there is no such tensor, or its shape or dtype does not fit.
        """
        return self._taken(name, shape).float32()

    def take_stored(self, name: str, shape: tuple[int, ...], keep_float16: bool = False) -> Table:
        """Return a matrix in 8 bits, and with `keep_float16` in F16, as it is; else as `take` does."""
        tensor = self._taken(name, shape)
        return tensor.table() if tensor.scale or (keep_float16 and tensor.dtype == "F16") else tensor.float32()

    def take_matrix(self, name: str, shape: tuple[int, ...]) -> Int8Matrix | StoredMatrix:
        """Return a matrix as it is stored, and note that it was used."""
        return self._taken(name, shape).matrix()

    def _taken(self, name: str, shape: tuple[int, ...]) -> Tensor:
        self.taken.add(name)
        return self.checked(name, shape)

    def checked(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor, not yet read, if it has the shape."""
        tensor = self.tensor(name)
        if tensor.shape != shape:
            raise CheckpointError(
                f"{tensor.file}: tensor {name}: expected shape {shape} from config.json, found {tensor.shape}; "
                "are config.json and weights of the same model?"
            )
        return tensor

    def encoded(self, encode: Callable[[Tensor], Stored]) -> Stored:
        """Return what `encode` makes of each tensor, in the order of their names, for `write_tensors`."""
        return {key: value for name in sorted(self._tensors) for key, value in encode(self.tensor(name)).items()}

    def stored(self) -> Stored:
        """Return all tensors as they are, for `write_tensors`."""
        return self.encoded(Tensor.stored)

    def release(self) -> None:
        """Give the files' pages back to the system once they are packed; what is still used is read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for mapped in {id(tensor.data.obj): tensor.data.obj for tensor in self._tensors.values()}.values():
                if isinstance(mapped, mmap.mmap):
                    mapped.madvise(mmap.MADV_DONTNEED)

    def unused(self) -> list[str]:
        """Names that `take` was not asked for."""
        return [name for name in self._tensors if name not in self.taken and name not in self.inherited]


def _scaled(tensor: Tensor, scale: Tensor, columns: Tensor | None) -> Tensor:
    """A matrix in 8 bits with the factors of its rows, and of its columns where it has some."""
    for factors, axis, kind in ((scale, 0, "row"), (columns, 1, "column")):
        if factors is not None:
            _check_factors(tensor, factors, axis, kind)
    return replace(tensor, scale=scale, columns=columns)


def _check_factors(tensor: Tensor, factors: Tensor, axis: int, kind: str) -> None:
    where = f"{factors.file}: tensor {factors.name}"
    wanted = tensor.shape[axis : axis + 1]
    if len(tensor.shape) != 2 or factors.shape != wanted or factors.dtype not in ("F32", "F16"):
        raise CheckpointError(
            f"{where}: expected F32 or F16 of shape {wanted}, a factor for each {kind} of "
            f"{tensor.name} {tensor.shape}, found {factors.dtype} of shape {factors.shape}; convert the model anew"
        )
    values = factors.array()
    if not (np.isfinite(values) & (values >= 0)).all():
        raise CheckpointError(f"{where}: expected factors from 0 on, found others; convert the model anew")


def encoded(name: str, values: np.ndarray, dtype: str) -> tuple[str, np.ndarray]:
    """Encode trained float32 values for `write_tensors`, in "float32" or "float16".

    Raises
    ------
    InputError
        If a value does not fit into float16.
    """
    if dtype == "float32":
        return "F32", values
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float16)
    if not np.isfinite(narrow).all():
        raise InputError(f"tensor {name}: expected values that fit into float16, found larger ones; save as float32")
    return "F16", narrow


def write_tensors(file: Path, tensors: Stored) -> None:
    """Write a safetensors file.

    Parameters
    ----------
    file : path
    tensors : mapping of str to (str, array)
        Names to dtypes in the format's words ("F32", "BF16", ...) and the values, BF16 as uint16.

    Notes
    -----
    The ``safetensors`` library cannot write BF16 from NumPy, and the signature of its general writer has changed
    between the versions that we accept. The format: length of the header (8 bytes), header (JSON), data.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [end, end + values.nbytes]}
        end += values.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # so that the data is aligned in a mapped file
    with open(file, "wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, values in tensors.values():
            stream.write(np.ascontiguousarray(values).data)


def read_safetensors(file: Path) -> Iterator[Tensor]:
    """Validate a file with the safetensors library, map it, and cut it into tensors."""
    check_regular(file)
    try:
        with safe_open(file, framework="numpy"):
            pass
        with open(file, "rb") as stream:
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        start = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(bytes(mapped[8:start]))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{file}: expected a whole safetensors file, found a fault: {error or type(error).__name__}"
            f"{_hint(file)}; copy or download it anew"
        ) from None
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            yield Tensor(name, file, entry["dtype"], tuple(entry["shape"]), mapped[start + first : start + last])


def _hint(file: Path) -> str:
    try:
        with open(file, "rb") as stream:
            beginning = stream.read(64)
    except OSError:
        return ""
    if beginning.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer, not the weights: git lfs pull)"
    return " (it is an archive or a pickle, not safetensors)" if beginning[:2] in (b"PK", b"\x80\x02") else ""
