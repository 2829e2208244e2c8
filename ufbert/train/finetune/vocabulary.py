"""Train only the word embeddings that a training set uses: all others have no gradient in any step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["train_used_rows"]


def train_used_rows(
    embeddings: nn.ModuleDict, input_ids: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], Callable[[], None]]:
    """Put a table of the used rows in the place of the word embeddings.

    An optimizer would otherwise update the whole table in each step: for a small encoder, as much work as its layers.

    Parameters
    ----------
    embeddings : ModuleDict
        With "word_embeddings".
    input_ids : sequence of (S,) integer arrays
        Of all texts.

    Returns
    -------
    input_ids : list of (S,) int64 arrays
        The same texts in row numbers of the smaller table.
    put_back : function
        Puts the whole table back, with what was trained.
    """
    whole: Any = embeddings["word_embeddings"]
    used = np.unique(np.concatenate(input_ids))
    rows = torch.from_numpy(used).long()
    embeddings["word_embeddings"] = nn.Embedding.from_pretrained(whole.weight.detach()[rows], freeze=False)

    def put_back() -> None:
        trained: Any = embeddings["word_embeddings"]
        with torch.no_grad():
            whole.weight[rows] = trained.weight.to(whole.weight.device)
        embeddings["word_embeddings"] = whole

    return [np.searchsorted(used, ids) for ids in input_ids], put_back
