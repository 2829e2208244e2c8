"""The runner under all tasks: what is read, held, cut and run together."""

import warnings

import numpy as np
import pytest
from conftest import BERT_CONFIG, bert_tensors, some_texts, write_bert, write_sentence_model

import ufbert
from ufbert import InputError, encoder, text_model
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.sentence import load_sentence_model
from ufbert.tasks.load import load_texts
from ufbert.text_model import each_text, windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("texts") / "model")


@pytest.fixture(scope="module")
def model(folder):
    return load_sentence_model(ModelFolder(folder)).texts


def test_encodings_in_hidden_states_out(model, monkeypatch):
    """As a server uses it: texts are tokenised by themselves and run together, in any grouping."""
    texts = some_texts(40)
    encodings = [model.tokenize([text])[0][0] for text in texts]
    alone = {i: next(model.run([encoding])).hidden for i, encoding in enumerate(encodings)}
    monkeypatch.setattr(text_model, "TOKEN_BUDGET", 50)
    runs = list(model.run(encodings, batch_size=7))
    assert all(run.batch.num_tokens <= 50 and len(run.batch) <= 7 for run in runs)
    found = dict(rows for run in runs for rows in run.split(run.hidden))
    assert sorted(found) == list(range(40))
    for index, hidden in alone.items():
        np.testing.assert_array_equal(found[index], hidden)


def test_windows_hold_no_more_than_they_should(monkeypatch):
    monkeypatch.setattr(text_model, "WINDOW_CHARACTERS", 10)
    texts = ["a" * 4] * 5 + ["b" * 30, "c", ("d" * 4, "e" * 6), "f"]
    assert [len(window) for window in windows(texts, 4)] == [3, 3, 2, 1]
    assert [text for window in windows(texts, 2) for text in window] == texts
    assert list(windows([], 4)) == []


def test_a_prompt_stands_before_each_text(model):
    prompted = text_model.replace(model, prompt="a b ")
    assert [e.ids for e in prompted.tokenize(["c", ""])[0]] == [e.ids for e in model.tokenize(["a b c", "a b "])[0]]


def test_the_limit_is_checked(model):
    assert model.with_max_length(np.int64(4)).max_length == 4
    for value in (2, 33, True, 4.0, "4"):
        with pytest.raises(InputError, match=r"from 3 to 32, got .*; the model takes 32 tokens at most"):
            model.with_max_length(value)


def test_what_a_model_cannot_take_is_refused(model, tmp_path):
    config = BERT_CONFIG | {"max_position_embeddings": 4}
    other = load_texts(ModelFolder(write_bert(tmp_path, bert_tensors(config), config)), None, "float32")
    encodings, _ = model.tokenize(["a b c d e"])
    with pytest.raises(InputError, match="at most 4 positions"):
        other.batch(encodings)


@pytest.mark.parametrize(
    "make", [iter, tuple, list, set, lambda texts: np.array(texts), lambda texts: (t for t in texts)]
)
def test_any_iterable_holds_texts(make):
    assert sorted(each_text(make(["a", "b"]), "texts")) == ["a", "b"]


class Frame:
    """Iterates over the names of its columns, as pandas', polars' and others do."""

    columns = ("text", "label")

    def __iter__(self):
        return iter(self.columns)


def test_a_table_is_no_list_of_texts():
    with pytest.raises(InputError, match=r'sentences: expected texts, got Frame, a table; .* sentences\["text"\]'):
        each_text(Frame(), "sentences")


def test_a_warning_names_the_line_that_called(folder):
    """Whatever lies between: a function of the package, a generator, a list that is filled."""
    encoder = ufbert.SentenceEncoder(folder)
    long = "a " * 40
    calls = [
        lambda: encoder.encode(long, on_overflow="warn"),
        lambda: list(encoder.stream([long], on_overflow="warn")),
    ]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert [warning.filename for warning in caught] == [__file__]
        assert "number 0 with 10 tokens too many" in str(caught[0].message)


def test_the_number_in_a_message_counts_from_the_first_window(folder):
    encoder = ufbert.SentenceEncoder(folder)
    texts = ["a"] * 10 + [None]
    with pytest.raises(InputError, match="sentences: expected str, got NoneType as number 10"):
        list(encoder.stream(texts, batch_size=4))
    with pytest.raises(InputError, match="the first is number 9 with 10 tokens too many"):
        list(encoder.stream(["a"] * 9 + ["a " * 40], batch_size=4, on_overflow="error"))


def test_a_long_window_stays_in_the_budget(model, monkeypatch):
    ran = []
    run = encoder.Encoder.__call__
    monkeypatch.setattr(
        encoder.Encoder, "__call__", lambda self, batch: ran.append(batch.num_tokens) or run(self, batch)
    )
    monkeypatch.setattr(text_model, "TOKEN_BUDGET", 64)
    for window in model.windows(some_texts(100), "texts"):
        list(model.run(window.encodings))
    assert max(ran) <= 64 and len(ran) > 10
