"""Tables of positions that files do not have: sinusoids, buckets of distances."""

from __future__ import annotations

import numpy as np

__all__ = ["distance_buckets", "sinusoids"]

FAR = 128  # distance from which on all share the last bucket


def distance_buckets(distances: np.ndarray, count: int) -> np.ndarray:
    """Buckets of distances from query to key, half of them for each side: near ones have their own, far ones share."""
    half, exact = count // 2, count // 4
    steps = np.abs(distances)
    ratio = np.log(np.maximum(steps, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(FAR / exact))
    shared = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    buckets: np.ndarray = np.where(steps < exact, steps, shared) + np.where(distances > 0, half, 0)
    return buckets


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Table of sinusoidal positions, (positions, width) float32: even columns sin, odd cos. arXiv 1706.03762, 3.5."""
    frequencies = np.exp(np.arange(0, width, 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / width))
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    table = np.empty((positions, width), np.float32)
    table[:, 0::2] = np.sin(angles)
    table[:, 1::2] = np.cos(angles)[:, : width // 2]
    return table
