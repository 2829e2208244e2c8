"""Routes as a table to read and as JSON to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import cmm
from .statistics import LayerRoutes, Routes

__all__ = ["as_json", "table"]

BUSIEST = (0.01, 0.1, 0.5)
TABLE_PERCENTILES = (1, 10, 50)
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


def table(routes: Routes, by_tree: bool = False) -> str:
    """Lay routes out as lines of text.

    Parameters
    ----------
    routes : Routes
    by_tree : bool
        A line for each tree too; without it, layers of several trees show their sums and means.
    """
    head = ["layer", "tree", "nodes", "dead", "dead %", "leaves", "seen", "entropy", "of max %"]
    head += [f"in {share:.0%}" for share in BUSIEST]
    head += ["margin min", *(f"{percentage} %" for percentage in TABLE_PERCENTILES)]
    rows = [head]
    for layer in routes.layers:
        percentiles = [_small(value) for value in layer.margin_percentiles(TABLE_PERCENTILES)]
        trees = range(len(layer.visits))
        rows.append(_row(layer, "all" if len(trees) > 1 else "0", list(trees), percentiles))
        if by_tree and len(trees) > 1:
            rows += [_row(layer, str(tree), [tree], []) for tree in trees]
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)) for row in rows]
    first = routes.layers[0]
    title = (
        f"{routes.num_texts} texts, {routes.num_tokens} tokens, {len(routes.layers)} layers of "
        f"{len(first.visits)}x{first.depth} (trees x depth), {routes.dtype}"
    )
    notes = (
        "entropy: of a tree's leaves, in bits; in 1 %: tokens (%) that end in the busiest 1 % of the leaves\n"
        "margin: smallest |score| of a deciding node on a token's way; minimum, and percentiles over tokens"
    )
    return "\n".join([title, *lines, notes])


def _row(layer: LayerRoutes, name: str, trees: list[int], percentiles: list[str]) -> list[str]:
    nodes, dead = len(trees) * layer.visits.shape[1], int(layer.dead_nodes[trees].sum())
    return [
        str(layer.layer),
        name,
        str(nodes),
        str(dead),
        f"{100 * dead / nodes:.1f}",
        str(len(trees) * layer.leaves.shape[1]),
        str(layer.leaves_seen[trees].sum()),
        f"{layer.leaf_entropy[trees].mean():.2f}",
        f"{100 * layer.entropy_share[trees].mean():.1f}",
        *(f"{100 * layer.busiest(share)[trees].mean():.1f}" for share in BUSIEST),
        _small(layer.smallest_margins[trees].min()),
        *percentiles,
    ]


def _small(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "-"


def as_json(routes: Routes) -> dict[str, Any]:
    """Put routes into lists and numbers, the whole histograms too; null stands for a margin where no node decides."""
    return {
        "num_texts": routes.num_texts,
        "num_tokens": routes.num_tokens,
        "dtype": routes.dtype,
        "instruction_set": cmm.active_isa(),
        "layers": [_layer(layer) for layer in routes.layers],
    }


def _layer(layer: LayerRoutes) -> dict[str, Any]:
    return {
        "layer": layer.layer,
        "num_trees": len(layer.visits),
        "depth": layer.depth,
        "nodes": layer.visits.size,
        "dead_nodes": int(layer.dead_nodes.sum()),
        "leaf_entropy": float(layer.leaf_entropy.mean()),
        "entropy_share": float(layer.entropy_share.mean()),
        "smallest_margin": _finite(layer.smallest_margins.min()),
        "margin_percentiles": _percentiles(layer, PERCENTILES),
        "trees": [
            {
                "dead_nodes": int(layer.dead_nodes[tree]),
                "leaves_seen": int(layer.leaves_seen[tree]),
                "leaf_entropy": float(layer.leaf_entropy[tree]),
                "entropy_share": float(layer.entropy_share[tree]),
                "smallest_margin": _finite(layer.smallest_margins[tree]),
                "visits": layer.visits[tree].tolist(),  # in heap order; the last 2**depth are the leaves
            }
            for tree in range(len(layer.visits))
        ],
    }


def _percentiles(layer: LayerRoutes, percentages: Sequence[float]) -> dict[str, float | None]:
    values = layer.margin_percentiles(percentages)
    return {f"{percentage:g}": _finite(value) for percentage, value in zip(percentages, values, strict=True)}


def _finite(value: float | np.floating[Any]) -> float | None:
    return float(value) if math.isfinite(value) else None
