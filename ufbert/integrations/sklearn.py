"""scikit-learn: a transformer from texts to embeddings, for pipelines and searches.

>>> from sklearn.linear_model import LogisticRegression
>>> from sklearn.pipeline import make_pipeline
>>> from ufbert.integrations.sklearn import UfbertVectorizer
>>> classifier = make_pipeline(UfbertVectorizer(), LogisticRegression())
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from .adapter import Adapter, missing

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils import Tags
except ImportError as error:
    raise missing("scikit-learn", error) from None

__all__ = ["UfbertVectorizer"]


class UfbertVectorizer(TransformerMixin, BaseEstimator, Adapter):  # type: ignore[misc]
    """Turns texts into embeddings; the parameters are those of `Adapter`. There is nothing to fit.

    A pickle has the settings alone, and loads the model again when it is used.
    """

    def fit(self, raw_documents: object, y: object = None) -> UfbertVectorizer:
        """Do nothing; scikit-learn's pipelines ask for it."""
        return self

    def transform(self, raw_documents: Iterable[str]) -> NDArray[np.float32]:
        """Embed texts: (N, dim)."""
        return self.texts(raw_documents)

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the columns: ufbert0, ufbert1, and so on."""
        width = self.encoder.dimension if self.truncate_dim is None else min(self.truncate_dim, self.encoder.dimension)
        return np.array([f"ufbert{index}" for index in range(width)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.requires_fit = False
        return tags
