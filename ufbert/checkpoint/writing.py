"""Files and folders on disk: only regular files are read, and what is written appears when it is complete."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, InputError, shown

if TYPE_CHECKING:
    import tempfile

__all__ = ["check_regular", "checked_place", "digest", "new_folder", "unreadable", "whole_file"]


def check_regular(file: Path) -> int:
    """Return the size of a file, after links.

    Raises
    ------
    CheckpointError
        If there is no file, or a folder, a pipe or a device: reading those might never end.
    """
    try:
        status = file.stat()
    except (OSError, ValueError) as error:
        raise unreadable(file, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise CheckpointError(f"{file}: expected a regular file, found {kind}; copy the model folder anew")
    return status.st_size


def unreadable(file: Path, error: Exception) -> CheckpointError:
    """Build the complaint about a file that cannot be opened."""
    return CheckpointError(
        f"{file}: expected a readable file, could not read it ({getattr(error, 'strerror', None) or error}); "
        "copy the whole model folder, not only the weights"
    )


@contextmanager
def new_folder(target: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `target` when the block ends, and vanishes if the block fails.

    Parameters
    ----------
    target : str or path
        A name that is free, or an empty folder.
    replace : bool
        It may also be a model folder, which is then replaced.

    Raises
    ------
    InputError
        If `target` is something else.
    """
    place = checked_place(target, replace)
    with _scratch_beside(place) as scratch:
        complete, old = Path(scratch, "model"), Path(scratch, "old")
        complete.mkdir()
        yield complete
        if replace and place.is_dir():
            place.rename(old)
        try:
            complete.rename(place)
        except BaseException as error:
            if isinstance(error, OSError) and place.exists():  # another process was faster
                raise _taken(place) from None
            if old.exists():
                old.rename(place)
            raise


def _scratch_beside(place: Path) -> tempfile.TemporaryDirectory[str]:
    import tempfile  # slow to import, and of use to writers only

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".ufbert-", dir=place.parent)
    except OSError as error:
        raise InputError(
            f"{place}: expected a place where folders can be made, got {error.strerror or error}; choose another"
        ) from None


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Give a path beside `file` to write; it becomes `file` when the block ends, and vanishes if the block fails.

    Raises
    ------
    InputError
        If another process removed it on the way.
    """
    # Machines that share the folder may have processes of the same number.
    part = file.with_name(f".{file.name}.{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        yield part
        with open(part, "rb+") as stream:  # Windows syncs only what may be written
            os.fsync(stream.fileno())
        part.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name too outlives a loss of power
        finally:
            os.close(folder)
    except FileNotFoundError as error:
        if error.filename is None or os.fspath(error.filename) != os.fspath(part) or not file.parent.is_dir():
            raise
        raise InputError(
            f"{file}: expected no other process to write it, found that one did; let one of them finish"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def digest(files: Iterable[Path]) -> str:
    """Return the SHA-256 of files, one after another."""
    from hashlib import sha256  # brings 4 MB of libcrypto

    found = sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def checked_place(target: str | os.PathLike[str], replace: bool = False) -> Path:
    """Return `target` as a path if `new_folder` would take it, else raise InputError."""
    try:
        path = Path(target)
        path.lstat()
    except FileNotFoundError:
        return path
    except (TypeError, ValueError, OSError) as error:  # not a path at all, too long, inside a file, ...
        raise InputError(f"target: expected a path for a new folder, got {shown(target)}: {error}") from None
    is_folder = path.is_dir() and not path.is_symlink()
    if is_folder and (not os.listdir(path) or (replace and (path / "config.json").exists())):
        return path
    raise _taken(path, "a model folder to replace" if replace else "a name that is free")


def _taken(path: Path, wanted: str = "a name that is free") -> InputError:
    return InputError(f"{path}: expected {wanted}, found something there; remove it or choose another")
