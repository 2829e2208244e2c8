"""spaCy: pipeline components for embeddings and for entities.

>>> nlp = spacy.blank("en")  # doctest: +SKIP
>>> nlp.add_pipe("ufbert", config={"dtype": "int8"})  # doctest: +SKIP
>>> nlp("Leaves make sugar.").similarity(nlp("Plants make food."))  # doctest: +SKIP

An installed ufbert tells spaCy of its components, so nothing needs to be imported. A stored pipeline keeps their
settings, not the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ..tasks import TokenClassifier
from .adapter import Adapter, missing

try:
    from spacy.language import Language
    from spacy.tokens import Doc, Span, Token
    from spacy.util import filter_spans, minibatch
except ImportError as error:
    raise missing("spacy", error) from None

if TYPE_CHECKING:
    from ..tasks.token_classifier import Entity

__all__ = ["UfbertEntities", "UfbertVectors", "make_entities", "make_vectors"]


class UfbertVectors:
    """Gives texts their embedding as ``vector``, and the cosine of two as ``similarity``.

    A document is embedded when the pipeline runs. Its embedding is in ``doc.user_data["ufbert"]`` too, which spaCy
    stores and sends between processes, as it does not with ``vector``. Spans and tokens are embedded alone, as texts,
    when their vector is asked for.

    Parameters
    ----------
    adapter : Adapter
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        adapter.encoder  # noqa: B018  # a model that is not there is refused here

    def __call__(self, doc: Doc) -> Doc:
        """Embed a document."""
        return self._keep(doc, self._vector(doc))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Embed documents, several at a time."""
        for docs in minibatch(stream, size=batch_size):
            yield from map(self._keep, docs, self.adapter.texts([doc.text for doc in docs]))

    def _keep(self, doc: Doc, vector: NDArray[np.float32]) -> Doc:
        doc.user_data["ufbert"] = vector
        common = {"vector_norm": _norm, "has_vector": _always, "similarity": _cosine}
        doc.user_hooks |= common | {"vector": self._kept}
        doc.user_span_hooks |= common | {"vector": self._vector}
        doc.user_token_hooks |= common | {"vector": self._vector}
        return doc

    def _kept(self, doc: Doc) -> NDArray[np.float32]:
        if "ufbert" not in doc.user_data:  # a span that was made a document
            doc.user_data["ufbert"] = self._vector(doc)
        vector: NDArray[np.float32] = doc.user_data["ufbert"]
        return vector

    def _vector(self, part: Doc | Span | Token) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = self.adapter.texts([part.text])[0]
        return vector


def _norm(part: Doc | Span | Token) -> float:
    return float(np.linalg.norm(part.vector))


def _always(part: Doc | Span | Token) -> bool:
    return True


def _cosine(part: Doc | Span | Token, other: Doc | Span | Token) -> float:
    a, b = part.vector, other.vector
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.dot(a, b) / norms) if norms else 0.0


class UfbertEntities:
    """Finds named entities: ``doc.ents``.

    An entity that ends inside one of spaCy's tokens takes the whole token.

    Parameters
    ----------
    classifier : TokenClassifier
    strategy : {"simple", "first", "average", "max"}
        How the labels of a word's tokens become one; see `ufbert.TokenClassifier`.
    """

    def __init__(self, classifier: TokenClassifier, strategy: str) -> None:
        self.classifier = classifier
        self.strategy = strategy

    def __call__(self, doc: Doc) -> Doc:
        """Find the entities of a document."""
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = 128) -> Iterator[Doc]:
        """Find the entities of documents, several at a time."""
        for docs in minibatch(stream, size=batch_size):
            found = cast("list[list[Entity]]", self.classifier([doc.text for doc in docs], self.strategy))
            yield from map(_label, docs, found)


def _label(doc: Doc, entities: list[Entity]) -> Doc:
    spans = [doc.char_span(e["start"], e["end"], e["entity_group"], alignment_mode="expand") for e in entities]
    doc.set_ents(filter_spans(span for span in spans if span is not None))  # two may be in one of spaCy's tokens
    return doc


@Language.factory("ufbert", assigns=["doc.user_data"])  # type: ignore[untyped-decorator]
def make_vectors(
    nlp: Language,
    name: str,
    model: str | None = None,
    dtype: str = "float32",
    max_seq_length: int | None = None,
    normalize_embeddings: bool = False,
    truncate_dim: int | None = None,
) -> UfbertVectors:
    """Make the component "ufbert"; the settings are those of `Adapter`."""
    return UfbertVectors(Adapter(model, dtype, max_seq_length, normalize_embeddings, truncate_dim))


@Language.factory("ufbert_ner", assigns=["doc.ents"])  # type: ignore[untyped-decorator]
def make_entities(
    nlp: Language, name: str, model: str, dtype: str = "float32", strategy: str = "first"
) -> UfbertEntities:
    """Make the component "ufbert_ner" of a folder with a token classifier."""
    return UfbertEntities(TokenClassifier(model, dtype=dtype), strategy)
