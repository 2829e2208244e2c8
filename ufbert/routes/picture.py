"""Routes as a picture, by matplotlib (extra ``plot``)."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .statistics import MARGIN_BINS, LayerRoutes, Routes, margin_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["check_matplotlib", "draw"]

SHOWN_TREES = 16  # lines in one panel that an eye can still follow
SHOWN_MARGIN = 1e-5  # from which on margins are drawn


def check_matplotlib() -> None:
    """Raise InputError, which names the extra, if matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "picture: expected matplotlib, it is not installed; pip install 'ufbert[plot]', or leave the picture out"
        ) from None


def draw(routes: Routes, file: IO[bytes]) -> None:
    """Write a PNG: for each layer its leaves, busiest first, and below all layers' entropy, dead nodes and margins."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 4 if len(routes.layers) > 6 else 3
    rows = -(-len(routes.layers) // columns)
    figure = Figure(figsize=(4 * columns, 2.6 * (rows + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows + 1, 2 * columns)
    for index, layer in enumerate(routes.layers):
        row, column = divmod(index, columns)
        _leaves(figure.add_subplot(grid[row, 2 * column : 2 * column + 2]), layer)
    _shares(figure.add_subplot(grid[rows, :columns]), routes)
    _margins(figure.add_subplot(grid[rows, columns:]), routes)
    figure.suptitle(f"{routes.num_texts} texts, {routes.num_tokens} tokens, {routes.dtype}")
    figure.savefig(file, format="png", dpi=110)


def _leaves(axes: Axes, layer: LayerRoutes) -> None:
    share = -np.sort(-layer.leaves, axis=1) / layer.num_tokens
    ranks = np.arange(1, share.shape[1] + 1)
    for tree in share[:SHOWN_TREES]:
        axes.loglog(ranks, np.where(tree > 0, tree, np.nan), linewidth=0.9, marker="." if len(ranks) < 4 else None)
    axes.axhline(1 / len(ranks), color="grey", linestyle=":", linewidth=0.9)
    dead = layer.dead_nodes.sum() / layer.visits.size
    axes.set_title(
        f"layer {layer.layer}: {layer.leaf_entropy.mean():.1f} of {layer.depth} bits, {dead:.0%} dead", fontsize=9
    )
    axes.set_xlabel("leaves, busiest first", fontsize=8)
    axes.set_ylabel("share of tokens", fontsize=8)


def _shares(axes: Axes, routes: Routes) -> None:
    numbers = np.arange(len(routes.layers))
    entropy = [layer.entropy_share.mean() for layer in routes.layers]
    dead = [layer.dead_nodes.sum() / layer.visits.size for layer in routes.layers]
    axes.bar(numbers - 0.2, entropy, 0.4, label="entropy of leaves / maximum")
    axes.bar(numbers + 0.2, dead, 0.4, label="dead nodes")
    axes.set_ylim(0, 1)
    axes.set_xlabel("layer", fontsize=8)
    axes.legend(fontsize=8)


def _margins(axes: Axes, routes: Routes) -> None:
    values = margin_values(np.arange(MARGIN_BINS))
    drawn = np.isfinite(values) & (values > SHOWN_MARGIN)
    for layer in routes.layers:
        if np.isfinite(layer.smallest_margins).any():
            share = np.cumsum(layer.margins) / layer.num_tokens
            inside = drawn & (share < 1)
            axes.semilogx(values[inside], share[inside], linewidth=0.9, label=str(layer.layer))
    axes.set_xlabel("smallest |score| of a deciding node on a token's way", fontsize=8)
    axes.set_ylabel("share of tokens below", fontsize=8)
    if axes.lines:
        axes.legend(title="layer", fontsize=7, title_fontsize=7, ncols=2)
