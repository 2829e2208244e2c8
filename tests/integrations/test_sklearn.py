"""scikit-learn's own checks, and a pipeline that is searched, stored and loaded."""

import pickle

import numpy as np
import pandas
import pytest
from sentences import FOOD, MODEL, MONEY, SENTENCES, TIDES
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

import ufbert
from ufbert.integrations.sklearn import UfbertVectorizer

LABELS = ["food"] * len(FOOD) + ["tides"] * len(TIDES) + ["money"] * len(MONEY)


def test_scikit_learns_checks():
    assert {result["status"] for result in check_estimator(UfbertVectorizer(MODEL))} == {"passed"}


def test_a_search_over_precisions_in_two_processes(tmp_path):
    pipeline = make_pipeline(UfbertVectorizer(MODEL), LogisticRegression())
    grid = {"ufbertvectorizer__dtype": ["float32", "int8"], "ufbertvectorizer__truncate_dim": [None, 64]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(SENTENCES, LABELS)
    assert search.cv_results_["mean_test_score"].min() > 0.5
    stored = pickle.dumps(search.best_estimator_)
    assert len(stored) < 20_000  # settings and a small classifier: no weights of the encoder
    again = pickle.loads(stored)
    assert again.predict(["The moon pulls the sea.", "The bank has money."]).tolist() == ["tides", "money"]


def test_embeddings_are_those_of_the_encoder():
    wanted = ufbert.SentenceEncoder(MODEL).encode(SENTENCES)
    for texts in (SENTENCES, np.array(SENTENCES), np.array(SENTENCES, dtype=object)):
        np.testing.assert_array_equal(UfbertVectorizer(MODEL).fit_transform(texts), wanted)


def test_settings_may_change_after_use():
    vectorizer = UfbertVectorizer(MODEL)
    float32 = vectorizer.transform(SENTENCES)
    vectorizer.set_params(dtype="int8")
    int8 = vectorizer.transform(SENTENCES)
    assert not np.array_equal(float32, int8)
    np.testing.assert_array_equal(clone(vectorizer).transform(SENTENCES), int8)
    assert vectorizer.get_feature_names_out().tolist()[::383] == ["ufbert0", "ufbert383"]
    assert len(vectorizer.set_params(truncate_dim=10).get_feature_names_out()) == 10


def test_columns_have_names_in_a_data_frame():
    vectorizer = UfbertVectorizer(MODEL, truncate_dim=3).set_output(transform="pandas")
    frame = vectorizer.fit_transform(pandas.Series(SENTENCES))
    assert frame.shape == (9, 3) and list(frame) == ["ufbert0", "ufbert1", "ufbert2"]


def test_one_str_is_refused():
    with pytest.raises(ufbert.InputError, match="several texts"):
        UfbertVectorizer(MODEL).transform("a text")
