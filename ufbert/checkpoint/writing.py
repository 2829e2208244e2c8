"""Writing folders and files: they appear when they are complete, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError, shown
from .files import ModelFolder, check_regular

__all__ = ["checked_place", "copy_settings", "new_folder", "whole_file"]

# What a model folder and its module folders are made of; pickles, code and other formats stay behind.
TOKENIZER = ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
KEPT = (
    *TOKENIZER,
    "config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
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
    place = checked_place(target, replace)
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


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Give a path beside `file` to write; it becomes `file` when the block ends, and vanishes if the block fails."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "rb") as stream:
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def copy_settings(folder: ModelFolder, target: Path) -> None:
    """Copy what a folder has but its weights; one that shares a base model's tokenizer gets a copy of that."""
    base = folder.base() if folder.has("config.json") else None
    for source, names in ((base, TOKENIZER if base else ()), (folder, KEPT)):
        for name in names:
            if source and source.has(name):
                check_regular(source.path / name)
                shutil.copyfile(source.path / name, target / name)
    if base:  # the copy stands alone
        config = folder.read_json("config.json")
        del config["base_model"]
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


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
    wanted = "a model folder to replace" if replace else "a name that is free"
    raise InputError(f"{path}: expected {wanted}, found something there; remove it or choose another")
