"""BERT encoders and UltraFastBERT on a CPU, without a deep-learning framework.

>>> import ufbert
>>> encoder = ufbert.SentenceEncoder()            # the bundled default, or a model folder
>>> embeddings = encoder.encode(["one text", "another"])
>>> model = ufbert.load("path/to/ultrafastbert")  # padded integer arrays in, hidden states and logits out
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import _host, cmm, reference  # noqa: F401 - _host refuses what cannot run
from .checkpoint import download, load
from .convert import convert
from .encoder import Model, ModelOutput
from .errors import CheckpointError, InputError, UfbertError
from .info import info

if TYPE_CHECKING:
    from .tasks import (
        CrossEncoder,
        FillMask,
        MultiVectorEncoder,
        QuestionAnswerer,
        SentenceEncoder,
        SparseEncoder,
        TextClassifier,
        TokenClassifier,
        ZeroShotClassifier,
        maxsim,
        quantize_embeddings,
    )

__version__ = "0.2.0"
__all__ = [
    "CheckpointError",
    "CrossEncoder",
    "FillMask",
    "InputError",
    "Model",
    "ModelOutput",
    "MultiVectorEncoder",
    "QuestionAnswerer",
    "SentenceEncoder",
    "SparseEncoder",
    "TextClassifier",
    "TokenClassifier",
    "UfbertError",
    "ZeroShotClassifier",
    "__version__",
    "cmm",
    "convert",
    "download",
    "info",
    "load",
    "maxsim",
    "quantize_embeddings",
    "reference",
]


def __getattr__(name: str) -> object:
    """Import a task when it is first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".tasks", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
