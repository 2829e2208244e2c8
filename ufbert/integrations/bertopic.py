"""BERTopic: the backend that embeds documents and words.

BERTopic knows its backends by their class; another object makes it download a model.

>>> from ufbert.integrations.bertopic import UfbertBackend
>>> topics = BERTopic(embedding_model=UfbertBackend())  # doctest: +SKIP
"""

from .adapter import TextAdapter, missing

try:
    from bertopic.backend import BaseEmbedder
except ImportError as error:
    raise missing("bertopic", error) from None

__all__ = ["UfbertBackend"]


class UfbertBackend(TextAdapter, BaseEmbedder):
    """Embeds documents and words; the parameters are those of `Adapter`."""
