"""A model folder: its JSON, its weights, its modules. Only JSON, text and safetensors are read: no pickle, no code."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..config import ModelConfig
from ..errors import CheckpointError, shown
from .families import Family, find_family, parse_config
from .pickled import read_pickled
from .tensors import Stored, Tensor, Tensors, read_safetensors, write_tensors
from .writing import check_regular, unreadable

__all__ = ["INDEX", "TRANSFORMER_SETTINGS", "WEIGHTS", "ModelFolder", "Module"]

MAX_TEXT_FILE = 256 * 2**20  # bytes; the largest tokenizer.json in use has some 35 MB
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
BASE = "ufbert_base_model"
OLD_BASE = "base_model"  # as versions before 0.1 wrote it; other programs use the key for other things
SENTENCE_TRANSFORMERS = "sentence_transformers."  # where the module classes of that library are
# What a model folder and its module folders are made of; pickles, code and other formats are not copied.
TOKENIZER = (
    "added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json", "vocab.txt",
)  # fmt: skip
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where sentence-transformers keeps the settings of its Transformer module, in the order in which it looks."""
SETTINGS = ("config.json", "config_sentence_transformers.json", "modules.json", *TRANSFORMER_SETTINGS)
COPIED = (*TOKENIZER, *SETTINGS, "README.md", "LICENSE")


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
    pickled : bool
        Also take weights that torch has pickled, where there are no others; see `ufbert.checkpoint.pickled`.

    Raises
    ------
    CheckpointError
        If there is no such folder.
    """

    def __init__(self, path: str | os.PathLike[str], pickled: bool = False) -> None:
        self.pickled = pickled
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
        if (self.path / "snapshots").is_dir() and not _is_model(self.path):
            names = sorted(f"snapshots/{found.name}" for found in (self.path / "snapshots").iterdir())
            raise CheckpointError(
                f"{self.path}: expected a model folder, found the hub's cache of one; name the folder "
                f"{' or '.join(names[:3]) or 'snapshots/...'} in it"
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
                text = stream.read(min(size, MAX_TEXT_FILE) + 1)  # it allocates what is asked for
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{file}: expected UTF-8 text, found other bytes ({error}); copy it anew") from None
        except OSError as error:
            raise unreadable(file, error) from None
        if max(size, len(text)) > MAX_TEXT_FILE:
            raise CheckpointError(f"{file}: expected at most {MAX_TEXT_FILE} bytes of text, found more; copy it anew")
        return text

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object of a JSON file."""
        value = self._parsed(name)
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
        return ModelFolder(self._inside(name, "modules.json"), self.pickled)

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
            kind = name.rsplit(".", 1)[-1] if name.startswith(SENTENCE_TRANSFORMERS) else name
            path = module.get("path", "")
            self._inside(path, "modules.json")
            found.append(Module(kind, path))
        if not found or found[0].kind != "Transformer":
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
        name, own = config.get(BASE, config.get(OLD_BASE)), self.path.resolve()
        if name is None:
            return None
        is_name = isinstance(name, str) and "\0" not in name and name not in ("", ".", "..")
        is_name = is_name and Path(name).parts == (name,)
        is_there = is_name and own.parent / name != own and _is_model(own.parent / name)
        if BASE not in config and (not is_there or self._has_tokenizer()):
            return None
        if is_there:
            return ModelFolder(own.parent / name, self.pickled).transformer()
        if not is_name:
            raise CheckpointError(
                f"{self.path / 'config.json'}: {BASE}: expected the name of a folder beside this one, without a "
                f"path, found {shown(name)}; correct the file"
            )
        raise CheckpointError(
            f"{own.parent / name}: expected the model folder that {own / 'config.json'} names as its {BASE}, "
            "it is missing; put it there"
        )

    def tokenizer_folder(self) -> ModelFolder:
        """Return the folder with the tokenizer: this one, or else its base."""
        return self if self._has_tokenizer() else self.base() or self

    def weight_files(self) -> dict[Path, list[str]]:
        """List the weight files, one or the shards of an index, each with the tensors that the index promises."""
        for weights, index in ((WEIGHTS, INDEX), PICKLED)[: 1 + self.pickled]:
            if self.has(weights):
                return {self.path / weights: []}
            if self.has(index):
                return self._shards(index, Path(weights).suffix)
        pickled = sorted(file.name for file in self.path.glob("*.bin")) + sorted(f.name for f in self.path.glob("*.pt"))
        raise CheckpointError(f"{self.path / WEIGHTS}: expected safetensors weights, found " + _instead(pickled))

    def _shards(self, index: str, suffix: str) -> dict[Path, list[str]]:
        weight_map = self.read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{self.path / index}: expected a weight_map of tensors to files, it is missing")
        shards: dict[Path, list[str]] = {}
        for tensor, name in weight_map.items():
            shards.setdefault(self._inside(name, index), []).append(tensor)
        for shard in shards:
            if shard.suffix != suffix or not os.path.isfile(shard):
                raise CheckpointError(
                    f"{shard}: expected the shard that {index} names, found no such {suffix[1:]} file"
                )
        return shards

    def own_tensors(self) -> Tensors:
        """Open the weights that are in this folder itself."""
        files = self.weight_files()
        pickled = any(file.suffix == ".bin" for file in files)
        return Tensors(files, read_pickled if pickled else read_safetensors)

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
            elif any(map(module.has, (WEIGHTS, INDEX, *PICKLED))):
                write_tensors(target / path / WEIGHTS, module.own_tensors().encoded(encode))
        write_tensors(place / WEIGHTS, transformer)
        if config is not None:
            _write_config(place, config)

    def copy_tokenizer_to(self, target: Path) -> None:
        """Copy the tokenizer's files that are there."""
        self._copy(TOKENIZER, target)

    def _copy_settings(self, target: Path) -> None:
        """Copy all but the weights; a folder that shares a base model's tokenizer gets a copy of that."""
        target.mkdir(parents=True, exist_ok=True)
        base = self.base() if self.has("config.json") else None
        if base:
            base.copy_tokenizer_to(target)
        self._copy(COPIED, target)
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
        tensors, base = self.own_tensors(), self.base()
        if base is None:
            return tensors
        if base.base() is not None:
            raise CheckpointError(
                f"{base.path / 'config.json'}: expected all weights in the base model of {self.path}, "
                "found one that has a base model itself; name that one"
            )
        family, found = base.family(), base.own_tensors()
        prefix = family.prefix
        if family.encoder["word_embeddings"] + ".weight" in found:  # an encoder without a head has bare names
            tensors.fill_from(found, {name: prefix + name for name in found.names()})
        else:
            tensors.fill_from(found, {name: name for name in found.names() if name.startswith(prefix)})
        return tensors

    def _copy(self, names: tuple[str, ...], target: Path) -> None:
        for name in filter(self.has, names):
            check_regular(self.path / name)
            shutil.copyfile(self.path / name, target / name)

    def _has_tokenizer(self) -> bool:
        return any(map(self.has, ("tokenizer.json", "vocab.txt", "merges.txt")))

    def _parsed(self, name: str) -> object:
        try:
            value: object = json.loads(self.read_text(name))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.path / name}: expected JSON, found a fault: {error}; copy it anew") from None
        return value

    def _module_entries(self) -> list[Any]:
        value = self._parsed("modules.json")
        if not isinstance(value, list):
            found = type(value).__name__
            raise CheckpointError(f"{self.path / 'modules.json'}: expected an array, found {found}; correct it")
        return value

    def _inside(self, name: object, where: str) -> Path:
        if isinstance(name, str) and "\0" not in name:
            path = Path(name)
            if ".." not in path.parts and not path.is_absolute():
                return self.path / path
        raise CheckpointError(f"{self.path / where}: expected names inside the model folder, found {shown(name)}")


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` for a model that has no base model, or none any more."""
    alone = {key: value for key, value in config.items() if key not in (BASE, OLD_BASE)}
    (folder / "config.json").write_text(json.dumps(alone, indent=2) + "\n", encoding="utf-8")


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "modules.json"))


def _instead(pickled: list[str]) -> str:
    if not pickled:
        return "none; copy the weights beside config.json"
    return (
        f"the pickled {', '.join(pickled[:3])}, which is never read here, because a pickle can run code; "
        "ufbert convert FOLDER NEW_FOLDER takes the tensors out of pytorch_model.bin, and nothing else: convert it"
    )
