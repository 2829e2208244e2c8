"""Our own format: BERT with FFF layers, under a ``model_type`` that transformers refuse. docs/format.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...activations import HUGGING_FACE, IN_KERNELS
from ...config import ModelConfig
from ...errors import CheckpointError
from ..options import Options
from ..tensors import Tensors
from . import bert, electra, mpnet
from .family import Family, written

__all__ = ["FAMILY", "FFF_COLUMNS", "FFF_NODES", "column_factors", "expand", "kept_nodes"]

KEYS = bert.KEYS | {  # 0 in students of BERT; those of RoBERTa, MPNet and ELECTRA keep what their teachers have
    "first_position": ("first_position", 0),
    "distance_buckets": ("distance_buckets", 0),
    "embedding_size": ("embedding_size", 0),
}
FFF_NODES = "nodes"  # of a pruned layer: the flat ids of the nodes that are stored
FFF_COLUMNS = "columns"  # of a pruned layer of floats: what w_out's columns are divided by before int8, from all nodes
FFF_ACTIVATIONS = {spelling: name for spelling, name in HUGGING_FACE.items() if name in IN_KERNELS}


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of a BERT with FFF layers, or with dense ones."""
    if top.choice("feed_forward", ("fff", "dense"), None) == "dense":
        return bert.FAMILY.read(top, task)
    act = top.choice("hidden_act", FFF_ACTIVATIONS, "gelu")
    top.choice("distance_buckets", (0, mpnet.BUCKETS), 0)
    return ModelConfig(
        family="ufbert",
        task=task,
        feed_forward="fff",
        hidden_act=FFF_ACTIVATIONS[act],
        num_trees=top.get("num_trees", None),
        depth=top.get("depth", None),
        output_bias=top.flag("output_bias", False),
        pruned=top.flag("pruned", False),
        **bert.read_encoder(top, KEYS),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Write the ``config.json`` of a BERT with FFF layers."""
    settings = {"model_type": "ufbert", "feed_forward": "fff", **written(config, FAMILY, KEYS, "hidden_act")}
    settings |= {key: getattr(config, key) for key in ("num_trees", "depth", "output_bias")}
    return settings | ({"pruned": True} if config.pruned else {})


def kept_nodes(tensors: Tensors, name: str, num_trees: int, num_nodes: int) -> np.ndarray:
    """Read which nodes of a layer are stored.

    Parameters
    ----------
    tensors : Tensors
    name : str
        An I32 tensor (kept,) of flat ids, ``tree * num_nodes + node``, ascending.
    num_trees, num_nodes : int

    Returns
    -------
    (kept,) int64 array

    Raises
    ------
    CheckpointError
        If there is no such tensor, or it cannot be what a corpus visited: with each node its parent, up to the root.
    """
    tensor = tensors.tensor(name)
    tensors.taken.add(name)
    where, count = f"{tensor.file}: tensor {name}", num_trees * num_nodes
    if tensor.dtype != "I32" or len(tensor.shape) != 1:
        found = f"{tensor.dtype} {tensor.shape}"
        raise CheckpointError(f"{where}: expected I32 of shape (kept,), found {found}; prune the model anew")
    nodes = tensor.array().astype(np.int64)
    if nodes.size and not (nodes[0] >= 0 and nodes[-1] < count and (np.diff(nodes) > 0).all()):
        expected = f"ascending ids from 0 to {count - 1}"
        raise CheckpointError(f"{where}: expected {expected}, found other ids; prune the model anew")
    tree, node = np.divmod(nodes, num_nodes)
    parents = tree * num_nodes + (node - 1) // 2
    orphans = nodes[(node > 0) & ~np.isin(parents, nodes)]
    if orphans.size:
        found = f"{orphans[0]} without"
        raise CheckpointError(f"{where}: expected each node's parent too, found {found}; prune the model anew")
    return nodes


def column_factors(tensors: Tensors, name: str, width: int) -> np.ndarray | None:
    """Return what output columns are divided by before they are rounded, (width,) float32; None where nothing says it.

    Raises
    ------
    CheckpointError
        If a factor is not a positive number.
    """
    if name not in tensors:
        return None
    factors = tensors.take(name, (width,))
    if not (np.isfinite(factors) & (factors > 0)).all():
        where = f"{tensors.tensor(name).file}: tensor {name}"
        raise CheckpointError(f"{where}: expected positive factors, found others; prune the model anew")
    return factors


def expand(rows: np.ndarray, nodes: np.ndarray, count: int) -> np.ndarray:
    """Put the stored rows into the whole heap of `count` nodes: (kept, ...) -> (count, ...).

    The others are zero: their score is 0, they add nothing, and a token goes on to the left.
    """
    heap = np.zeros((count, *rows.shape[1:]), rows.dtype)
    heap[nodes] = rows
    return heap


FAMILY = Family(
    tasks=bert.FAMILY.tasks,
    encoders=bert.FAMILY.encoders,
    read=read,
    write=write,
    prefix=bert.FAMILY.prefix,
    encoder={
        **{key: name for key, name in bert.FAMILY.encoder.items() if not key.startswith("feed_forward")},
        "distance_bias": mpnet.FAMILY.encoder["distance_bias"],
        "embedding_projection": electra.FAMILY.encoder["embedding_projection"],
        "fff_in": "encoder.layer.{layer}.ffn.linear_in",
        "fff_out": "encoder.layer.{layer}.ffn.linear_out",
        "fff_nodes": "encoder.layer.{layer}.ffn." + FFF_NODES,
        "fff_columns": "encoder.layer.{layer}.ffn." + FFF_COLUMNS,
    },
    head=bert.FAMILY.head,
    ignored=bert.FAMILY.ignored,
)
