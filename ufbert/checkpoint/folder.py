"""A model folder: its JSON, its weights, its modules. Only JSON, text and safetensors are read: no pickle, no code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..config import ModelConfig
from ..errors import CheckpointError, shown
from . import files
from .families import Family, find_family, parse_config
from .files import INDEX, TRANSFORMER_SETTINGS, WEIGHTS
from .hub import Remote
from .names import bundled, find_remote
from .tensors import Stored, Tensor, Tensors, read_safetensors, write_tensors
from .weights import has_weights, weight_files
from .writing import check_regular, digest

__all__ = ["INDEX", "TRANSFORMER_SETTINGS", "WEIGHTS", "ModelFolder", "Module"]


class Module(NamedTuple):
    """One module of a folder: its class ("Transformer", "Pooling", "Dense", ...) and its path inside the folder.

    A class that is not sentence-transformers' own keeps its full name.
    """

    kind: str
    path: str


class ModelFolder:
    """A folder with ``config.json``, weights and usually a tokenizer, or a sentence-transformers folder of modules.

    Parameters
    ----------
    path : str or path
        A folder. A str may also be the name of a bundled model, or ``organisation/name[@revision]`` of the hub. Of the
        latter settings are fetched now, and weights when they are asked for.
    pickled : bool
        Also take weights that torch has pickled, where there are no others; see `ufbert.checkpoint.pickled`.
    remote : Remote, optional
        Where files are fetched that `path` does not have.

    Raises
    ------
    CheckpointError
        If there is no such folder, or the hub does not give the model.
    """

    def __init__(self, path: str | os.PathLike[str], pickled: bool = False, remote: Remote | None = None) -> None:
        if remote is None and bundled(path) is None and (found := find_remote(path)) is not None:
            path, remote = _settings_of(found)
        self.pickled, self.remote = pickled, remote
        try:
            self.path = bundled(path) or Path(path)
            is_folder = self.path.is_dir()
        except (TypeError, ValueError, OSError):  # not a path at all, or one with a NUL, or too long
            name = f"{path!s:.400}" if isinstance(path, os.PathLike) else shown(path)
            raise CheckpointError(f"model folder: expected a path, got {name}") from None
        if not is_folder:
            is_there = "a file" if self.path.exists() else "nothing"
            raise CheckpointError(
                f"{self.path}: expected a model folder (config.json, model.safetensors), found {is_there}; a model of "
                f"the Hugging Face hub is named with its organisation, such as sentence-transformers/{self.path.name}"
            )
        if (self.path / "snapshots").is_dir() and not _is_model(self.path):
            names = sorted(f"snapshots/{found.name}" for found in (self.path / "snapshots").iterdir())
            raise CheckpointError(
                f"{self.path}: expected a model folder, found the hub's cache of one; name the folder "
                f"{' or '.join(names[:3]) or 'snapshots/...'} in it"
            )

    @classmethod
    def of_hub(cls, remote: Remote, pickled: bool = False) -> ModelFolder:
        """Open a model of the hub: its settings are fetched."""
        path, at_commit = _settings_of(remote)
        return cls(path, pickled, at_commit)

    def has(self, name: str) -> bool:
        """Tell whether something of that name is there, though it may turn out not to be readable."""
        return os.path.lexists(self.path / name)

    def read_text(self, name: str) -> str:
        """Return the text of a UTF-8 file."""
        return files.read_text(self.path / name)

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object of a JSON file."""
        value = files.parse_json(self.path / name)
        if not isinstance(value, dict):
            raise CheckpointError(f"{self.path / name}: expected an object, found {type(value).__name__}; correct it")
        return value

    def read_optional_json(self, name: str) -> dict[str, Any]:
        """Return the object of a JSON file, empty if there is no such file."""
        return self.read_json(name) if self.has(name) else {}

    def config(self, encoder_only: bool = False, task: str | None = None) -> ModelConfig:
        """Read ``config.json``; see `ufbert.checkpoint.families.parse_config`. Its complaints name this folder."""
        with self._named():
            return parse_config(self.read_json("config.json"), encoder_only, task)

    def family(self) -> Family:
        """Return the family that ``config.json`` names."""
        with self._named():
            return find_family(self.read_json("config.json"))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Put this folder before complaints of ``config.json``."""
        try:
            yield
        except CheckpointError as error:
            if not str(error).startswith("config.json"):
                raise
            raise CheckpointError(f"{self.path}{os.sep}{error}") from None

    def subfolder(self, name: str) -> ModelFolder:
        """Return a folder inside this one."""
        remote = None if self.remote is None else self.remote.inside(name)
        return ModelFolder(self._inside(name, "modules.json"), self.pickled, remote)

    def modules(self) -> list[Module]:
        """List the modules, the transformer first; a plain model folder has nothing else.

        Raises
        ------
        CheckpointError
            If ``modules.json`` is faulty, or its first module is not a transformer.
        """
        if not self.has("modules.json"):
            pooling = [Module("Pooling", "1_Pooling")] if self.has("1_Pooling/config.json") else []
            return [Module("Transformer", ""), *pooling]
        file, found = self.path / "modules.json", []
        for module in self._module_entries():
            if not isinstance(module, dict) or not isinstance(module.get("type"), str):
                raise CheckpointError(f"{file}: expected objects with a type and a path, found {shown(module)}")
            name = module["type"]
            kind = name.rsplit(".", 1)[-1] if name.startswith(files.SENTENCE_TRANSFORMERS) else name
            path = module.get("path", "")
            self._inside(path, "modules.json")
            found.append(Module(kind, path))
        if not found or found[0].kind not in ("Transformer", "MLMTransformer"):
            kinds = [kind for kind, _ in found]
            raise CheckpointError(
                f"{file}: expected the modules of an encoder, a Transformer first, found {shown(kinds)}"
            )
        return found

    def transformer(self) -> ModelFolder:
        """Return the folder of the transformer: this one, or a sub-folder that ``modules.json`` names."""
        return self.subfolder(self.modules()[0].path)

    def pooling(self) -> ModelFolder | None:
        """Return the folder of the pooling module, None if this folder does not say how to pool."""
        paths = [path for kind, path in self.modules() if kind == "Pooling"]
        return self.subfolder(paths[0]) if paths else None

    def base(self) -> ModelFolder | None:
        """Return the folder whose encoder and tokenizer this one shares, None if it has its own.

        ``config.json`` names it as ``ufbert_base_model``: a name without a path, of a folder beside this one. So a
        model folder cannot point anywhere else. Its former name ``base_model`` counts only where such a folder is
        there and this one has no tokenizer: other programs use that key too.
        """
        config = self.read_json("config.json")
        name, own = config.get(files.BASE, config.get(files.OLD_BASE)), self.path.resolve()
        if name is None:
            return None
        is_name = isinstance(name, str) and "\0" not in name and name not in ("", ".", "..")
        is_name = is_name and Path(name).parts == (name,)
        is_there = is_name and own.parent / name != own and _is_model(own.parent / name)
        if files.BASE not in config and (not is_there or self._has_tokenizer()):
            return None
        if is_there:
            return ModelFolder(own.parent / name, self.pickled).transformer()
        if not is_name:
            raise CheckpointError(
                f"{self.path / 'config.json'}: {files.BASE}: expected the name of a folder beside this one, without a "
                f"path, found {shown(name)}; correct the file"
            )
        raise CheckpointError(
            f"{own.parent / name}: expected the model folder that {own / 'config.json'} names as its {files.BASE}, "
            "it is missing; put it there"
        )

    def tokenizer_folder(self) -> ModelFolder:
        """Return the folder with the tokenizer: this one, or else its base."""
        return self if self._has_tokenizer() else self._only_base() or self

    def weight_files(self) -> dict[Path, list[str]]:
        """List the weight files, one or the shards of an index, each with the tensors that the index promises."""
        return weight_files(self.path, self.pickled, self.remote)

    def has_weights(self) -> bool:
        """Tell whether there are weights, after they were fetched where this is a model of the hub."""
        return has_weights(self.path, self.pickled, self.remote)

    def complete(self) -> ModelFolder:
        """Fetch the weights of all modules, where this is a model of the hub; return this folder."""
        if self.remote is not None:
            for _, path in self.modules():
                if self._inside(path, "modules.json").is_dir():
                    self.subfolder(path).has_weights()
        return self

    def sha256(self) -> str:
        """Digest of the weights, in hexadecimal digits: embeddings can be compared where it is equal."""
        return digest(sorted(self.weight_files()))

    def own_tensors(self) -> Tensors:
        """Open the weights that are in this folder itself."""
        files = self.weight_files()
        pickled = any(file.suffix == ".bin" for file in files)
        if not pickled:
            return Tensors(files, read_safetensors)
        from .pickled import read_pickled  # slow to import, and rarely wanted

        return Tensors(files, read_pickled)

    def copy_to(
        self,
        target: Path,
        transformer: Stored,
        config: Mapping[str, Any] | None = None,
        encode: Callable[[Tensor], Stored] = Tensor.stored,
    ) -> None:
        """Write this folder anew, all its modules, with other weights of the transformer.

        Parameters
        ----------
        target : Path
            An empty folder. The copy stands alone: it has all weights and the tokenizer, and no base model.
        transformer : mapping of str to (str, array)
            All tensors of the transformer, for `write_tensors`.
        config : mapping, optional
            The transformer's ``config.json``; by default as it is.
        encode : callable, optional
            Gives the other modules' tensors their names, dtypes and values; by default as they are.
        """
        self._copy_settings(target)
        place = target
        for index, (_, path) in enumerate(self.modules()):
            if not self._inside(path, "modules.json").is_dir():  # Normalize has neither settings nor weights
                continue
            module = self.subfolder(path)
            module._copy_settings(target / path)
            if index == 0:
                place = target / path
            elif module.has_weights():
                write_tensors(target / path / WEIGHTS, module.own_tensors().encoded(encode))
        write_tensors(place / WEIGHTS, transformer)
        if config is not None:
            _write_config(place, config)

    def copy_tokenizer_to(self, target: Path) -> None:
        """Copy the tokenizer's files that are there."""
        self._copy(files.TOKENIZER, target)

    def _copy_settings(self, target: Path) -> None:
        """Copy all but the weights; a folder that shares a base model's tokenizer gets a copy of that."""
        target.mkdir(parents=True, exist_ok=True)
        base = self.base() if self.has("config.json") else None
        if base:
            base.copy_tokenizer_to(target)
        self._copy(files.COPIED, target)
        if base:
            _write_config(target, self.read_json("config.json"))

    def tensors(self) -> Tensors:
        """Open the weights; what they do not have comes from the encoder of the base model.

        So a classifier whose head and last layers alone were trained is a file of a few megabytes.

        Raises
        ------
        CheckpointError
            If a file is faulty, or the base model shares an encoder in its turn.
        """
        if self.has("adapter_config.json"):
            raise CheckpointError(
                f"{self.path / 'adapter_config.json'}: expected a model without an adapter, found one, which peft "
                "would apply; merge it into the weights (merge_and_unload), or remove its files"
            )
        base = self._only_base()
        tensors = self.own_tensors()
        if base is None:
            return tensors
        family, found = base.family(), base.own_tensors()
        prefix = family.prefix
        if family.encoder["word_embeddings"] + ".weight" in found:  # an encoder without a head has bare names
            tensors.fill_from(found, {name: prefix + name for name in found.names()})
        else:
            tensors.fill_from(found, {name: name for name in found.names() if name.startswith(prefix)})
        return tensors

    def _only_base(self) -> ModelFolder | None:
        """Return the base, which may not have one itself."""
        base = self.base()
        if base is not None and base.base() is not None:
            raise CheckpointError(
                f"{base.path / 'config.json'}: expected all weights in the base model of {self.path}, "
                "found one that has a base model itself; name that one"
            )
        return base

    def _copy(self, names: tuple[str, ...], target: Path) -> None:
        import shutil  # slow to import, and rarely wanted

        for name in filter(self.has, names):
            check_regular(self.path / name)
            shutil.copyfile(self.path / name, target / name)

    def _has_tokenizer(self) -> bool:
        return any(map(self.has, ("tokenizer.json", "vocab.txt", "merges.txt")))

    def _module_entries(self) -> list[Any]:
        value = files.parse_json(self.path / "modules.json")
        if not isinstance(value, list):
            found = type(value).__name__
            raise CheckpointError(f"{self.path / 'modules.json'}: expected an array, found {found}; correct it")
        return value

    def _inside(self, name: object, where: str) -> Path:
        return files.inside(self.path, name, where)


def _settings_of(remote: Remote) -> tuple[str, Remote]:
    """Fetch a model's settings: the folder that they are in, and where its other files are."""
    snapshot = remote.fetch(files.FETCHED, quiet=True)
    if not _is_model(snapshot / remote.folder):
        raise CheckpointError(
            f"{remote}: expected a model with config.json, found none in that repository of the hub; is it a model of "
            "transformers or sentence-transformers?"
        )
    folder, at_commit = ModelFolder(snapshot / remote.folder), remote.at(snapshot)
    if folder.has("modules.json"):
        others = [path for _, path in folder.modules() if path and not folder.has(path)]
        if others:
            at_commit.fetch([f"{path}/*.{ending}" for path in others for ending in ("json", "txt")], quiet=True)
    return str(folder.path), at_commit


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` for a model that has no base model, or none any more."""
    alone = {key: value for key, value in config.items() if key not in (files.BASE, files.OLD_BASE)}
    (folder / "config.json").write_text(json.dumps(alone, indent=2) + "\n", encoding="utf-8")


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "modules.json"))
