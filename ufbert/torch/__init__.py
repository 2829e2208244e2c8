"""PyTorch modules that run on the kernels, for training. Needs the extra ``train``."""

from ..errors import UfbertError

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise UfbertError(
        f"ufbert.torch: expected PyTorch, found none ({error}); install it with: pip install 'ufbert[train]'"
    ) from error

from .bert import Bert
from .fast_feedforward import FastFeedForward
from .precision import mixed_precision
from .threads import use_threads

__all__ = ["Bert", "FastFeedForward", "mixed_precision", "use_threads"]
