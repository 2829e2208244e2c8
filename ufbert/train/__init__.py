"""Training with PyTorch: modules that run on the kernels or on a GPU, conversion to trees, fine-tuning.

Needs the extra ``train``. Both kinds of training, `distill` and `finetune`, stand on `run`: one state on disk, one
lock, one learning-rate schedule, one log.
"""

from ..errors import UfbertError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise UfbertError(
        f"ufbert.train: expected PyTorch, could not import it ({error}); install it with: pip install 'ufbert[train]'"
    ) from error

from .bert import Bert
from .device import find_device, mixed_precision, use_threads
from .fast_feedforward import FastFeedForward

__all__ = ["Bert", "FastFeedForward", "find_device", "mixed_precision", "use_threads"]
