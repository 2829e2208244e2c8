"""KeyBERT: the backend that embeds documents and words.

KeyBERT knows its backends by their class; another object makes it download a model.

>>> from ufbert.integrations.keybert import UfbertBackend
>>> keywords = KeyBERT(UfbertBackend()).extract_keywords(texts)  # doctest: +SKIP
"""

from .adapter import TextAdapter, missing

try:
    from keybert.backend import BaseEmbedder
except ImportError as error:
    raise missing("keybert", error) from None

__all__ = ["UfbertBackend"]


class UfbertBackend(TextAdapter, BaseEmbedder):
    """Embeds documents and words; the parameters are those of `Adapter`."""
