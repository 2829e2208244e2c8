"""FFF layers stored without the nodes that no token visited: which nodes are there, and the whole heap again."""

from __future__ import annotations

import numpy as np

from ..errors import CheckpointError
from .tensors import Tensors

__all__ = ["expand", "kept_nodes"]


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
        raise CheckpointError(f"{where}: expected {expected}, found others; prune the model anew")
    tree, node = np.divmod(nodes, num_nodes)
    parents = tree * num_nodes + (node - 1) // 2
    orphans = nodes[(node > 0) & ~np.isin(parents, nodes)]
    if orphans.size:
        found = f"{orphans[0]} without"
        raise CheckpointError(f"{where}: expected each node's parent too, found {found}; prune the model anew")
    return nodes


def expand(rows: np.ndarray, nodes: np.ndarray, count: int) -> np.ndarray:
    """Put the stored rows into the whole heap of `count` nodes: (kept, ...) -> (count, ...).

    The others are zero: their score is 0, they add nothing, and a token goes on to the left.
    """
    heap = np.zeros((count, *rows.shape[1:]), rows.dtype)
    heap[nodes] = rows
    return heap
