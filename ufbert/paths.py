"""What the paths that tokens took through trees say: which nodes they visited, how near their decisions were."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["node_visits", "smallest_margin"]


def node_visits(path: ArrayLike, num_nodes: int) -> NDArray[np.int64]:
    """Count how often each node was visited.

    Parameters
    ----------
    path : (T, P, depth + 1) integer array
        From `fff_forward` or a `PackedFFF` with ``return_path=True``.
    num_nodes : int
        Nodes of a tree, n.

    Returns
    -------
    (P, n) int64 array
        Each tree's row sums to T * (depth + 1).
    """
    path = np.asarray(path)
    trees = [np.bincount(path[:, tree].ravel(), minlength=num_nodes) for tree in range(path.shape[1])]
    return np.stack(trees) if trees else np.zeros((0, num_nodes), np.int64)


def smallest_margin(scores: ArrayLike) -> float:
    """How near a decision came to the other side.

    Parameters
    ----------
    scores : (T, P, depth + 1) array
        From `fff_forward` or a `PackedFFF` with ``return_scores=True``.

    Returns
    -------
    float
        The smallest absolute score of a node that decides, that is above the last level; infinity if there is
        none. Two correct implementations may choose different paths where it is no larger than their rounding.
    """
    deciding = np.abs(np.asarray(scores)[:, :, :-1])
    return float(np.min(deciding, initial=np.inf, where=~np.isnan(deciding)))
