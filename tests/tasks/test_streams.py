"""Every task takes any iterable, gives the same one by one, and holds a batch of texts, whatever their number."""

import copy
import pickle
import weakref

import numpy as np
import pytest
from conftest import add_mean_pooling, write_bert
from task_folders import write_task

import ufbert
from ufbert import InputError


class Text(str):
    """A text whose end can be seen."""

    __slots__ = ("__weakref__",)


TASKS = {
    "encode": (lambda p: ufbert.SentenceEncoder(add_mean_pooling(write_bert(p))), "encode", {}),
    "classify": (lambda p: ufbert.TextClassifier(write_task(p, "BertForSequenceClassification")), "__call__", {}),
    "all labels": (
        lambda p: ufbert.TextClassifier(write_task(p, "BertForSequenceClassification")),
        "__call__",
        {"top_k": None},
    ),
    "ner": (lambda p: ufbert.TokenClassifier(write_task(p, "BertForTokenClassification")), "__call__", {}),
    "fill-mask": (lambda p: ufbert.FillMask(write_task(p, "BertForMaskedLM")), "__call__", {}),
    "qa": (lambda p: Questions(write_task(p, "BertForQuestionAnswering")), "__call__", {}),
    "answers": (lambda p: Questions(write_task(p, "BertForQuestionAnswering")), "__call__", {"top_k": 3}),
}


class Questions(ufbert.QuestionAnswerer):
    """One question to many contexts."""

    def __call__(self, texts, **options):
        return super().__call__("who", texts, **options)

    def stream(self, texts, **options):
        return super().stream("who", texts, **options)


@pytest.fixture(scope="module", params=TASKS)
def task(request, tmp_path_factory):
    make, call, options = TASKS[request.param]
    made = make(tmp_path_factory.mktemp("task") / "model")
    return getattr(made, call), made.stream, options


def texts(count):
    return (Text(f"[MASK] {'a b ' * (number % 7)}cat") for number in range(count))


def same(a, b):
    """Whether two results are the same, scores to 1e-6: heads multiply in NumPy, whose sums depend on the batch."""
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == pytest.approx(b, abs=1e-6) if isinstance(a, float) else a == b


def test_one_by_one_is_all_at_once(task):
    call, stream, options = task
    expected = call(list(texts(50)), **options)
    assert len(expected) == 50
    for size in (1, 7, 64):
        streamed = list(stream(texts(50), batch_size=size, **options))
        assert all(same(a, b) for a, b in zip(expected, streamed, strict=True))
    for other in (call(texts(50), **options), call(np.array(list(texts(50))), **options)):
        assert all(same(a, b) for a, b in zip(expected, other, strict=True))


def test_a_batch_of_texts_is_held(task):
    """Not more are read than a batch, and none is kept after its result is given."""
    _, stream, options = task
    alive, read = weakref.WeakSet(), 0

    def watched():
        nonlocal read
        for text in texts(200):
            read += 1
            alive.add(text)
            yield text
            del text

    for done, _ in enumerate(stream(watched(), batch_size=8, **options)):
        assert read <= done + 8
        assert len(alive) <= 2 * 8 + 1


def test_a_text_alone_is_no_stream(task):
    _, stream, options = task
    if stream.__self__.__class__ is not Questions:  # it takes one context
        for text in ("one", b"one", {"text": "one"}):
            with pytest.raises(InputError, match="put one text alone into a list"):
                stream(text, **options)


def test_options_are_checked_before_the_first_text(task):
    _, stream, _ = task
    with pytest.raises(InputError, match="batch_size"):
        stream(texts(1), batch_size=0)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda task: pickle.loads(pickle.dumps(task))])
def test_a_copy_gives_the_same(task, copied):
    _, stream, options = task
    other = copied(stream.__self__)
    assert all(same(a, b) for a, b in zip(stream(texts(9), **options), other.stream(texts(9), **options), strict=True))


def test_nothing_in_nothing_out(task):
    call, stream, options = task
    assert len(call([], **options)) == 0 and list(stream([], **options)) == []
