"""Text in, arrays and labels out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cross_encoder import CrossEncoder
    from .fill_mask import FillMask
    from .multi_vector_encoder import MultiVectorEncoder, maxsim
    from .quantize import quantize_embeddings
    from .question_answerer import QuestionAnswerer
    from .sentence_encoder import SentenceEncoder
    from .sparse_encoder import SparseEncoder
    from .text_classifier import TextClassifier
    from .token_classifier import TokenClassifier
    from .zero_shot_classifier import ZeroShotClassifier

__all__ = [
    "CrossEncoder",
    "FillMask",
    "MultiVectorEncoder",
    "QuestionAnswerer",
    "SentenceEncoder",
    "SparseEncoder",
    "TextClassifier",
    "TokenClassifier",
    "ZeroShotClassifier",
    "maxsim",
    "quantize_embeddings",
]
_MODULES = {
    "CrossEncoder": "cross_encoder",
    "FillMask": "fill_mask",
    "MultiVectorEncoder": "multi_vector_encoder",
    "QuestionAnswerer": "question_answerer",
    "SentenceEncoder": "sentence_encoder",
    "SparseEncoder": "sparse_encoder",
    "TextClassifier": "text_classifier",
    "TokenClassifier": "token_classifier",
    "ZeroShotClassifier": "zero_shot_classifier",
    "maxsim": "multi_vector_encoder",
    "quantize_embeddings": "quantize",
}


def __getattr__(name: str) -> object:
    """Import a task when it is first asked for (PEP 562)."""
    if name in _MODULES:
        return getattr(import_module("." + _MODULES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
