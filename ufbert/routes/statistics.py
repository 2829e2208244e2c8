"""What is counted of the ways through trees, and what follows from the counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MARGIN_BINS", "LayerRoutes", "Routes", "margin_bins", "margin_values"]

_SHIFT = 18  # of a float32's bits the exponent and 5 of the mantissa remain: a bin is 3 % wide, whatever its size
MARGIN_BINS = 1 << (31 - _SHIFT)


def margin_bins(margins: np.ndarray) -> np.ndarray:
    """Bins of margins, which are not negative: (T,) float32 -> (T,) integers below `MARGIN_BINS`."""
    return np.ascontiguousarray(margins, np.float32).view(np.uint32) >> _SHIFT


def margin_values(bins: np.ndarray) -> np.ndarray:
    """Middles of bins: (...) integers -> (...) float32; the last ones are infinity and NaN."""
    return ((bins.astype(np.uint32) << _SHIFT) + (1 << (_SHIFT - 1))).view(np.float32)


@dataclass(frozen=True)
class LayerRoutes:
    """How tokens went through the P trees of one layer, with n nodes and L = 2**depth leaves each.

    Attributes
    ----------
    layer : int
        From 0.
    depth : int
    num_tokens : int
        T, and T visits of each root and of each tree's leaves together.
    visits : (P, n) int64 array
        Tokens that visited each node.
    smallest_margins : (P,) float32 array
        The smallest absolute score of a deciding node that a token visited; infinity where no node decides.
    margins : (MARGIN_BINS,) int64 array
        Tokens by their margin, the smallest absolute score of all deciding nodes on their way; see `margin_bins`.
    """

    layer: int
    depth: int
    num_tokens: int
    visits: NDArray[np.int64]
    smallest_margins: NDArray[np.float32]
    margins: NDArray[np.int64]

    @property
    def leaves(self) -> NDArray[np.int64]:
        """Tokens that ended at each leaf, (P, L) int64."""
        return self.visits[:, 2**self.depth - 1 :]

    @property
    def leaf_entropy(self) -> NDArray[np.float64]:
        """Entropy of each tree's leaves in bits, (P,) float64; at most `depth`."""
        share = self.leaves / max(self.num_tokens, 1)
        bits = share * np.log2(share, out=np.zeros_like(share), where=share > 0)
        return np.asarray(-bits.sum(axis=1))

    @property
    def entropy_share(self) -> NDArray[np.float64]:
        """`leaf_entropy` as a share of its maximum, (P,) float64; 1 for a tree of one leaf."""
        return self.leaf_entropy / self.depth if self.depth else np.ones(len(self.visits))

    @property
    def dead_nodes(self) -> NDArray[np.int64]:
        """Nodes of each tree that no token visited, (P,) int64."""
        return np.asarray(np.count_nonzero(self.visits == 0, axis=1))

    @property
    def leaves_seen(self) -> NDArray[np.int64]:
        """Leaves of each tree where a token ended, (P,) int64."""
        return np.asarray(np.count_nonzero(self.leaves > 0, axis=1))

    def busiest(self, share: float) -> NDArray[np.float64]:
        """Share of the tokens that ended in the busiest `share` of each tree's leaves (one at least), (P,) float64."""
        count = max(1, round(share * self.leaves.shape[1]))
        tokens = np.sort(self.leaves, axis=1)[:, -count:].sum(axis=1)
        return np.asarray(tokens / max(self.num_tokens, 1))

    def margin_percentiles(self, percentages: Sequence[float]) -> NDArray[np.float64]:
        """Percentiles of the tokens' margins, to 1.6 %; infinity where no node decides."""
        counts = np.cumsum(self.margins)
        if not counts[-1] or not np.isfinite(self.smallest_margins).any():
            return np.full(len(percentages), np.inf)
        ranks = np.ceil(np.asarray(percentages) / 100 * counts[-1])
        bins = np.searchsorted(counts, np.maximum(ranks, 1))
        return np.asarray(np.maximum(margin_values(bins), self.smallest_margins.min()), np.float64)


@dataclass(frozen=True)
class Routes:
    """How the tokens of a corpus went through a model's layers.

    Attributes
    ----------
    layers : tuple of LayerRoutes
    num_texts, num_tokens : int
        Special tokens count.
    dtype : str
        Precision that the model ran in: scores near 0 may fall on either side in another one.
    """

    layers: tuple[LayerRoutes, ...]
    num_texts: int
    num_tokens: int
    dtype: str
