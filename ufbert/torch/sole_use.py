"""One process at a time in a folder of unfinished training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError

__all__ = ["sole_use"]


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, until the block or the process ends.

    Raises
    ------
    InputError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            for part in folder.glob(".*.part"):  # of a `whole_file` that was killed
                part.unlink()
            yield
    except Timeout:
        raise InputError(
            f"{folder}: expected to be alone at work there, found another process; wait until it ends, stop it, or "
            "choose another output"
        ) from None
