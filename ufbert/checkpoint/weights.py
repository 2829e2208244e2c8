"""The files with a model's weights: one, or the shards of an index; fetched first where they are on the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .files import INDEX, PICKLED, WEIGHTS, inside, parse_json
from .hub import Remote

__all__ = ["has_weights", "weight_files"]


def weight_files(folder: Path, pickled: bool, remote: Remote | None) -> dict[Path, list[str]]:
    """List the weight files, each with the tensors that an index promises.

    Parameters
    ----------
    folder : Path
    pickled : bool
        Also torch's pickles, where there is nothing else.
    remote : Remote or None
        Where they are fetched that are missing.

    Raises
    ------
    CheckpointError
        If there are none, or an index is faulty.
    """
    if has_weights(folder, pickled, remote):
        for weights, index in _kinds(pickled):
            if _has(folder, weights):
                return {folder / weights: []}
            if _has(folder, index):
                return _shards(folder, index, Path(weights).suffix)
    found = sorted(file.name for file in folder.glob("*.bin")) + sorted(file.name for file in folder.glob("*.pt"))
    advice = _instead(found) if remote is None else _elsewhere(remote)
    raise CheckpointError(f"{folder / WEIGHTS}: expected safetensors weights, found {advice}")


def has_weights(folder: Path, pickled: bool, remote: Remote | None) -> bool:
    """Tell whether there are weights, after those that are missing were fetched."""
    for weights, index in _kinds(pickled):
        if remote is not None:
            _fetch(folder, remote, weights, index)
        if _has(folder, weights) or _has(folder, index):
            return True
    return False


def _fetch(folder: Path, remote: Remote, weights: str, index: str) -> None:
    if _has(folder, weights):
        return
    if not _has(folder, index):
        remote.fetch([weights])
        return
    shards = sorted({str(name) for name in _weight_map(folder, index).values()})
    missing = [name for name in shards if not inside(folder, name, index).is_file()]
    if missing:
        remote.fetch(missing)


def _shards(folder: Path, index: str, suffix: str) -> dict[Path, list[str]]:
    shards: dict[Path, list[str]] = {}
    for tensor, name in _weight_map(folder, index).items():
        shards.setdefault(inside(folder, name, index), []).append(tensor)
    for shard in shards:
        if shard.suffix != suffix or not os.path.isfile(shard):
            raise CheckpointError(f"{shard}: expected the shard that {index} names, found no such {suffix[1:]} file")
    return shards


def _weight_map(folder: Path, index: str) -> dict[str, Any]:
    found = parse_json(folder / index)
    weight_map = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / index}: expected a weight_map of tensors to files, it is missing")
    return weight_map


def _kinds(pickled: bool) -> tuple[tuple[str, str], ...]:
    """Names of a single file and of an index, in the order in which they count."""
    return ((WEIGHTS, INDEX), PICKLED)[: 1 + pickled]


def _has(folder: Path, name: str) -> bool:
    return os.path.lexists(folder / name)


def _elsewhere(remote: Remote) -> str:
    return (
        f"none in that repository of the hub; where it has a pytorch_model.bin, ufbert convert {remote} NEW_FOLDER "
        "takes the tensors out of it, and nothing else"
    )


def _instead(pickled: list[str]) -> str:
    if not pickled:
        return "none; copy the weights beside config.json"
    return (
        f"the pickled {', '.join(pickled[:3])}, which is never read here, because a pickle can run code; "
        "ufbert convert FOLDER NEW_FOLDER takes the tensors out of pytorch_model.bin, and nothing else: convert it"
    )
