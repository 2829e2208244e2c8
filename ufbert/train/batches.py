"""Texts of about one length together, and padded: how both kinds of training make batches of token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["cut", "padded"]


def cut(
    lengths: NDArray[np.int64], rows: NDArray[np.int64], max_texts: int | None = None, max_positions: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """Sort rows by length and cut them into batches.

    Parameters
    ----------
    lengths : (N,) int64 array
        Tokens of each text.
    rows : (M,) int64 array
        The texts to cut into batches, by number.
    max_texts : int, optional
        Texts of a batch.
    max_positions : int, optional
        Tokens of a batch, padding included; a text with more is a batch of its own.

    Yields
    ------
    int64 array
        The rows of a batch, from short to long.
    """
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows):
            texts = stop + 1 - start
            too_many = max_texts is not None and texts > max_texts
            if too_many or (max_positions is not None and texts * lengths[rows[stop]] > max_positions):
                break
            stop += 1
        yield rows[start:stop]
        start = stop


def padded(*sequences: Sequence[Sequence[int] | NDArray[np.integer]]) -> tuple[Tensor, ...]:
    """Pad token ids, and what goes with them, to the longest text.

    Parameters
    ----------
    *sequences : sequences of N sequences of integers
        Each of the same N lengths.

    Returns
    -------
    mask : (N, S) bool tensor
        False at padding.
    *padded : (N, S) int64 tensors
        0 at padding.
    """
    lengths = np.array([len(row) for row in sequences[0]])
    mask = np.arange(lengths.max()) < lengths[:, None]
    filled = []
    for rows in sequences:
        values = np.zeros(mask.shape, np.int64)
        values[mask] = np.concatenate(rows)
        filled.append(torch.from_numpy(values))
    return torch.from_numpy(mask), *filled
