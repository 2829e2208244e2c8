"""What is in a model folder. Only JSON, text and safetensors are read: no pickle, no code."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, shown

__all__ = ["INDEX", "WEIGHTS", "ModelFolder", "check_regular"]

MAX_TEXT_FILE = 256 * 2**20  # bytes; the largest tokenizer.json in use has some 35 MB
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


class ModelFolder:
    """A folder with ``config.json``, weights and mostly a tokenizer.

    Parameters
    ----------
    path : str or path

    Raises
    ------
    CheckpointError
        If there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        try:
            self.path = Path(path)
            is_folder = self.path.is_dir()
        except (TypeError, ValueError, OSError):  # not a path at all, or one with a NUL, or too long
            raise CheckpointError(f"model folder: expected a path, got {shown(path)}") from None
        if not is_folder:
            found = "a file" if self.path.exists() else "nothing"
            raise CheckpointError(
                f"{self.path}: expected a model folder (config.json, model.safetensors), found {found}; a model of the "
                "Hugging Face hub is first copied: hf download ORGANISATION/NAME --local-dir FOLDER"
            )

    def has(self, name: str) -> bool:
        """Tell whether something of that name is there, though it may turn out not to be readable."""
        return os.path.lexists(self.path / name)

    def read_text(self, name: str) -> str:
        """Return the text of a UTF-8 file."""
        file = self.path / name
        size = check_regular(file)
        try:
            with open(file, encoding="utf-8") as stream:
                text = stream.read(MAX_TEXT_FILE + 1)
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{file}: expected UTF-8 text, found other bytes ({error}); copy it anew") from None
        except OSError as error:
            raise _unreadable(file, error) from None
        if max(size, len(text)) > MAX_TEXT_FILE:
            raise CheckpointError(f"{file}: expected at most {MAX_TEXT_FILE} bytes of text, found more; copy it anew")
        return text

    def read_json(self, name: str, kind: type = dict) -> Any:
        """Return the object (or with ``kind=list`` the array) of a JSON file."""
        text = self.read_text(name)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.path / name}: expected JSON, found a fault: {error}; copy it anew") from None
        if not isinstance(value, kind):
            expected = "an object" if kind is dict else "an array"
            raise CheckpointError(f"{self.path / name}: expected {expected}, found {type(value).__name__}")
        return value

    def read_optional_json(self, name: str) -> dict[str, Any]:
        """Return the object of a JSON file, empty if there is no such file."""
        return self.read_json(name) if self.has(name) else {}

    def subfolder(self, name: Any) -> ModelFolder:
        """Return a folder inside this one."""
        return ModelFolder(self._inside(name, "modules.json"))

    def base(self) -> ModelFolder | None:
        """Return the folder whose encoder and tokenizer this one shares, None if it has its own.

        ``config.json`` names it as ``base_model``: a name without a path, of a folder beside this one. So a model
        folder cannot point anywhere else.
        """
        name = self.read_json("config.json").get("base_model")
        if name is None:
            return None
        if not isinstance(name, str) or "\0" in name or name in ("", ".", "..") or Path(name).parts != (name,):
            raise CheckpointError(
                f"{self.path / 'config.json'}: base_model: expected the name of a folder beside this one, without a "
                f"path, found {shown(name)}; correct the file"
            )
        own = self.path.resolve()
        if not (own.parent / name / "config.json").is_file() or own.parent / name == own:
            raise CheckpointError(
                f"{own.parent / name}: expected the model folder that {own / 'config.json'} names as its base_model, "
                "found none; put it there"
            )
        return ModelFolder(own.parent / name)

    def tokenizer_folder(self) -> ModelFolder:
        """Return the folder with the tokenizer: this one, or else its base."""
        has_own = self.has("tokenizer.json") or self.has("vocab.txt")
        return self if has_own else self.base() or self

    def weight_files(self) -> dict[Path, list[str]]:
        """List the safetensors files, one or the shards of an index, each with the tensors that the index promises."""
        if self.has(WEIGHTS):
            return {self.path / WEIGHTS: []}
        if self.has(INDEX):
            weight_map = self.read_json(INDEX).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise CheckpointError(f"{self.path / INDEX}: expected a weight_map of tensors to files, found none")
            shards: dict[Path, list[str]] = {}
            for tensor, name in weight_map.items():
                shards.setdefault(self._inside(name, INDEX), []).append(tensor)
            for shard in shards:
                if shard.suffix != ".safetensors" or not os.path.isfile(shard):
                    raise CheckpointError(
                        f"{shard}: expected the shard that {INDEX} names, found no such safetensors file"
                    )
            return shards
        pickled = sorted(file.name for file in self.path.glob("*.bin")) + sorted(f.name for f in self.path.glob("*.pt"))
        raise CheckpointError(f"{self.path / WEIGHTS}: expected safetensors weights, found " + _instead(pickled))

    def _inside(self, name: Any, where: str) -> Path:
        parts = Path(name).parts if isinstance(name, str) and "\0" not in name else ("..",)
        if ".." in parts or Path(*parts).is_absolute():
            raise CheckpointError(f"{self.path / where}: expected names inside the model folder, found {shown(name)}")
        return self.path / name


def check_regular(file: Path) -> int:
    """Return the size of a file, after links.

    Raises
    ------
    CheckpointError
        If there is none, or a folder, a pipe or a device, of which reading might never end.
    """
    try:
        status = file.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
        raise CheckpointError(f"{file}: expected a regular file, found {kind}; copy the model folder anew")
    return status.st_size


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{file}: expected a readable file, found none ({getattr(error, 'strerror', None) or error}); "
        "copy the whole model folder, not only the weights"
    )


def _instead(pickled: list[str]) -> str:
    if not pickled:
        return "none; copy the weights beside config.json"
    return (
        f"the pickled {', '.join(pickled[:3])}, which is never read, because a pickle can run code; where torch is "
        "installed, convert it: safetensors.torch.save_file(torch.load('pytorch_model.bin', weights_only=True), "
        "'model.safetensors')"
    )
