"""A model without the nodes that a corpus never visits, with the proof that the corpus does not notice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.families import family_of
from ..checkpoint.families.ufbert import expand, kept_nodes
from ..checkpoint.folder import ModelFolder
from ..checkpoint.tensors import COLUMNS, SCALE, Tensors
from ..checkpoint.writing import new_folder
from ..config import ModelConfig
from ..errors import CheckpointError, InputError
from ..int8 import column_sizes
from ..isa import active_isa
from ..text_model import each_text
from .record import load_text_model, run_recorded
from .statistics import Routes

__all__ = ["Pruned", "PrunedLayer", "prune"]

NODES = ("fff_in.weight", "fff_in.bias", "fff_out.weight", "fff_nodes")  # tensors with an entry for each node


@dataclass(frozen=True)
class PrunedLayer:
    """What a layer had and has: nodes of all its trees, and bytes of its tensors in the file."""

    num_nodes: int
    kept: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Pruned:
    """What `prune` did.

    Attributes
    ----------
    folder : Path
    layers : tuple of PrunedLayer
    num_texts, num_tokens : int
        Of the corpus on which both models gave the same bits.
    dtypes : tuple of str
        Precisions in which they did.
    instruction_set : str
        On which they did.
    """

    folder: Path
    layers: tuple[PrunedLayer, ...]
    num_texts: int
    num_tokens: int
    dtypes: tuple[str, ...]
    instruction_set: str


def prune(
    source: str | os.PathLike[str],
    texts: Iterable[str],
    target: str | os.PathLike[str],
    dtypes: Sequence[str] = ("float32",),
    force: bool = False,
) -> Pruned:
    """Copy a model folder without the nodes that no token of a corpus visits.

    Parameters
    ----------
    source : str or path
        A model folder with FFF layers.
    texts : iterable of str
        Read twice for each dtype, so a list or a `Corpus`, no generator.
    target : str or path
        A folder that does not exist yet, or is empty; it appears when it is complete and proven.
    dtypes : sequence of {"float32", "bfloat16", "int8", "auto"}
        Precisions in which the corpus is run; a node stays if it is visited in any.
    force : bool
        Replace a model folder at `target`.

    Returns
    -------
    Pruned

    Raises
    ------
    CheckpointError
        If `source` is not usable or has no FFF layers; if any bit of any token's hidden state differs between the
        two models (then there is no `target`).
    InputError
        If `texts` cannot be read twice or is empty, or `target` is taken.

    Notes
    -----
    A token that comes to a dropped node meets a zero row: it gets nothing from it and goes on to the left. So other
    texts may fare worse. So may this corpus in a precision that is not among `dtypes`, or on another instruction set:
    rounding can send a token whose score is near 0 to the other side. Convert first, and prune then.
    """
    folder = ModelFolder(source).complete()
    if each_text(texts, "texts") is texts:
        raise InputError("texts: expected texts that can be read twice, got an iterator; pass a list or a Corpus")
    if not dtypes or isinstance(dtypes, str):
        raise InputError(f"dtypes: expected a list of one precision or more, got {dtypes!r}")
    _check_apart(folder.path, Path(target))
    with new_folder(target, force) as complete:
        before = [run_recorded(load_text_model(folder.path, dtype), texts) for dtype in dtypes]
        layers = _write(folder, complete, _visited([routes for routes, _ in before]))
        for (routes, digests), dtype in zip(before, dtypes, strict=True):
            again, found = run_recorded(load_text_model(complete, dtype), texts)
            _check_same(routes, digests, again, found)
    routes, names = before[0][0], tuple(found.dtype for found, _ in before)
    return Pruned(Path(target), layers, routes.num_texts, routes.num_tokens, names, active_isa())


def _check_apart(source: Path, target: Path) -> None:
    """Refuse to replace the model that is read, or what it is in."""
    here, there = source.resolve(), target.resolve()
    if there == here or there in here.parents:
        raise InputError(f"{target}: expected a folder beside the model, got one that holds it; choose another")


def _visited(runs: Sequence[Routes]) -> list[np.ndarray]:
    """Flat ids of the nodes of each layer that any run visited, ascending."""
    layers = zip(*(routes.layers for routes in runs), strict=True)
    return [np.flatnonzero(sum(layer.visits for layer in of_runs)).astype(np.int32) for of_runs in layers]


def _check_same(routes: Routes, digests: list[bytes], again: Routes, found: list[bytes]) -> None:
    if routes.num_tokens != again.num_tokens or len(digests) != len(found):
        raise InputError(
            f"texts: expected the same when they are read twice, got {routes.num_tokens} and then {again.num_tokens} "
            "tokens; the pruned model is not kept"
        )
    differing = sum(one != other for one, other in zip(digests, found, strict=True))
    if differing:
        raise CheckpointError(
            f"pruned model ({routes.dtype}): expected the same bits as the original's, found other bits in "
            f"{differing} of {len(digests)} batches; it is not kept. Did the corpus or the model change meanwhile?"
        )


def _write(folder: ModelFolder, target: Path, visited: list[np.ndarray]) -> tuple[PrunedLayer, ...]:
    """Write the pruned model with all that is around it."""
    root = folder.transformer()
    settings = root.read_json("config.json")
    config, tensors = root.config(encoder_only=True), root.tensors()
    stored = tensors.stored()
    spelling = family_of(config.family).spelling(tensors)
    layers = []
    for index, nodes in enumerate(visited):
        spelled = {key: spelling(key, index) for key in NODES}
        old = dict(_layer_tensors(tensors, spelled))
        new = dict(_pruned_tensors(tensors, spelled, nodes, config))
        stored |= new | _columns(tensors, spelled["fff_out.weight"], spelling("fff_columns", index), config)
        layers.append(PrunedLayer(config.num_trees * config.num_nodes, len(nodes), _size(old), _size(new)))
    folder.copy_to(target, stored, settings | {"pruned": True})
    return tuple(layers)


def _layer_tensors(tensors: Tensors, spelled: dict[str, str]) -> Iterator[tuple[str, tuple[str, np.ndarray]]]:
    """The tensors of a layer that have a row or column for each node, as they are stored."""
    for name in spelled.values():
        if name in tensors:
            yield from tensors.tensor(name).stored().items()


def _pruned_tensors(
    tensors: Tensors, spelled: dict[str, str], nodes: np.ndarray, config: ModelConfig
) -> Iterator[tuple[str, tuple[str, np.ndarray]]]:
    """The same with the rows and columns of `nodes` only."""
    before = None
    if config.pruned:
        before = kept_nodes(tensors, spelled["fff_nodes"], config.num_trees, config.num_nodes)
    for name, (dtype, array) in _layer_tensors(tensors, spelled):
        # The factors of outputs and of inputs stay; those of nodes are cut.
        if name in (spelled["fff_nodes"], spelled["fff_out.weight"] + SCALE, spelled["fff_in.weight"] + COLUMNS):
            continue
        rows = array.T if name == spelled["fff_out.weight"] else array
        rows = (rows if before is None else expand(rows, before, config.num_trees * config.num_nodes))[nodes]
        yield name, (dtype, np.ascontiguousarray(rows.T if name == spelled["fff_out.weight"] else rows))
    yield spelled["fff_nodes"], ("I32", nodes)


def _columns(tensors: Tensors, w_out: str, name: str, config: ModelConfig) -> dict[str, tuple[str, np.ndarray]]:
    """What the columns of output rows are divided by before int8: of all nodes, so that rows are rounded as before."""
    tensor = tensors.tensor(w_out)
    if name in tensors or tensor.scale is not None:
        return {}
    return {name: ("F32", column_sizes(tensor.float32().T, config.num_trees * config.num_nodes))}


def _size(tensors: dict[str, Any]) -> int:
    return sum(array.nbytes for _, array in tensors.values())
