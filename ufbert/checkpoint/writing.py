"""Writing a model folder: it appears when it is complete, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError, shown
from .files import ModelFolder, check_regular

__all__ = ["copy_settings", "new_folder"]

# What a model folder and its module folders are made of; pickles, code and other formats stay behind.
KEPT = (
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "README.md",
    "LICENSE",
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
    place = _checked_place(target, replace)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ufbert-", dir=place.parent) as scratch:
        complete, old = Path(scratch, "model"), Path(scratch, "old")
        complete.mkdir()
        yield complete
        if replace and place.is_dir():
            place.rename(old)
        try:
            complete.rename(place)
        except BaseException:
            if old.exists():
                old.rename(place)
            raise


def copy_settings(folder: ModelFolder, target: Path) -> None:
    """Copy what a folder has but its weights."""
    for name in KEPT:
        if folder.has(name):
            check_regular(folder.path / name)
            shutil.copyfile(folder.path / name, target / name)


def _checked_place(target: str | os.PathLike[str], replace: bool) -> Path:
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
    wanted = "a model folder to replace" if replace else "a name that is free"
    raise InputError(f"{path}: expected {wanted}, found something there; remove it or choose another")
