"""PyTorch's threads, by the package's one policy."""

from __future__ import annotations

import torch

from .. import threads

__all__ = ["use_threads"]


def use_threads(num_threads: int | None = None) -> int:
    """Let PyTorch use as many threads as the kernels do; return how many.

    Parameters
    ----------
    num_threads : int, optional
        None for `ufbert.threads.get_num_threads`: ``UFBERT_NUM_THREADS``, ``OMP_NUM_THREADS``, or what the process has.
    """
    count = threads.get_num_threads(num_threads)
    torch.set_num_threads(count)
    return count
