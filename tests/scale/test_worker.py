"""The worker: the results of the tasks' classes, and rows that have none."""

import dataclasses
import pickle

import numpy as np
import pytest
from conftest import GOLDEN, write_sentence_model

import ufbert
from ufbert import InputError
from ufbert.scale import Settings, Worker

PIPELINES = GOLDEN / "pipelines"
TEXTS = ["a cat", "the cat. a b c", "", "b" * 20]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_sentence_model(tmp_path_factory.mktemp("worker") / "model"))


def test_embeddings_are_those_of_encode(model):
    worker = Worker(Settings("embed", model, options={"truncate_dim": 5, "normalize_embeddings": True}))
    results = worker(TEXTS)
    expected = ufbert.SentenceEncoder(model).encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_array_equal(results.columns["embedding"], expected)
    assert worker.widths == {"embedding": 5} and not results.failed


def test_normalized_says_so_only_of_whole_embeddings():
    assert Worker(Settings("embed")).normalized
    assert not Worker(Settings("embed", options={"truncate_dim": 5})).normalized  # of a model that normalises first
    assert Worker(Settings("embed", options={"truncate_dim": 5, "normalize_embeddings": True})).normalized


def test_labels_are_those_of_the_classifier():
    classifier = ufbert.TextClassifier(PIPELINES / "text-classification")
    settings = Settings("classify", str(PIPELINES / "text-classification"), options={"top_k": 1})
    results = Worker(settings)([*TEXTS, ("a", "b")])
    expected = classifier([*TEXTS, ("a", "b")])
    assert results.columns["label"].tolist() == [row["label"] for row in expected]
    np.testing.assert_array_equal(results.columns["score"], np.float32([row["score"] for row in expected]))
    every = Worker(dataclasses.replace(settings, options={"top_k": 100}))
    assert every.widths == {"labels": len(classifier.labels), "scores": len(classifier.labels)}
    assert every(TEXTS).columns["labels"].tolist() == [
        [label["label"] for label in row] for row in classifier(TEXTS, top_k=None)
    ]


@pytest.mark.parametrize("query", ["a query", None])
def test_scores_are_those_of_the_cross_encoder(query, reranker):
    scorer = ufbert.CrossEncoder(reranker)
    pairs = [("a query", text) for text in TEXTS]
    worker = Worker(Settings("rerank", str(reranker), options={"query": query}))
    results = worker(pairs if query is None else TEXTS)
    np.testing.assert_array_equal(results.columns["score"], scorer.predict(pairs))


@pytest.fixture(scope="module")
def reranker():
    return GOLDEN / "pipelines" / "text-classification-one-label"


def test_rows_without_a_text(model):
    rows = ["a", None, 5, "b", b"c", ("a", None)]
    with pytest.raises(InputError, match="row 1: expected a text, found null; correct it, or write nulls"):
        Worker(Settings("embed", model))(rows)
    results = Worker(Settings("embed", model, on_error="null"))(rows)
    assert {n: why.split(":")[0] for n, why in results.failed.items()} == {
        1: "expected a text, found null", 2: "expected a text, found int", 4: "expected a text, found bytes",
        5: "expected a text, found null",
    }  # fmt: skip
    expected = ufbert.SentenceEncoder(model).encode(["a", "b"])
    np.testing.assert_array_equal(results.columns["embedding"][[0, 3]], expected)


@pytest.mark.parametrize("task", ["embed", "classify"])
def test_only_rows_without_a_text_or_none_at_all(task, model):
    folder = model if task == "embed" else str(PIPELINES / "text-classification")
    worker = Worker(Settings(task, folder, on_error="null"))
    for rows in ([None, None], []):
        results = worker(rows)
        assert len(results.failed) == len(rows)
        assert {name: len(values) for name, values in results.columns.items()} == dict.fromkeys(
            worker.widths, len(rows)
        )


def test_texts_that_are_too_long_are_counted_or_refused(model):
    rows = ["a", "a b " * 100, "b", "c d " * 100]
    for on_overflow in ("truncate", "warn"):
        assert Worker(Settings("embed", model, on_overflow=on_overflow))(rows).truncated == 2
    with pytest.raises(InputError, match=r"place 1: 1 text.* longer than 32 tokens"):
        Worker(Settings("embed", model, on_overflow="error"))(rows, "place {}".format)
    results = Worker(Settings("embed", model, on_overflow="error", on_error="null"))(rows)
    assert set(results.failed) == {1, 3} and results.truncated == 0
    np.testing.assert_array_equal(results.columns["embedding"][2], ufbert.SentenceEncoder(model).encode("b"))


def test_settings_travel(model):
    settings = Settings("embed", model)
    assert pickle.loads(pickle.dumps(settings)) == settings
