"""Answers that transformers' goldens do not pin: certainty, lengths, long questions, many questions together."""

import numpy as np
import pytest
from conftest import GOLDEN
from task_folders import write_task

import ufbert
from ufbert import InputError, encoder
from ufbert.tasks.question_answerer import best_spans


@pytest.fixture(scope="module")
def answerer():
    return ufbert.QuestionAnswerer(GOLDEN / "pipelines" / "question-answering")


def certain_of_no_answer(tensors):
    """The first position alone decides, and by far."""
    for name in tensors:
        if ".layer." in name and ".dense." in name:
            tensors[name] *= 0
        if "LayerNorm" in name:
            tensors[name][:] = name.endswith("weight")
    positions = tensors["bert.embeddings.position_embeddings.weight"]
    positions *= 0
    positions[0, 0], positions[1:, 0] = 50, -5
    tensors["qa_outputs.weight"] *= 0
    tensors["qa_outputs.weight"][:, 0] = 200
    return tensors


def test_a_model_that_is_certain_of_no_answer(tmp_path):
    answerer = ufbert.QuestionAnswerer(write_task(tmp_path, "BertForQuestionAnswering", change=certain_of_no_answer))
    call = {"question": "who", "context": "the cat a b c " * 9}  # two spans
    answer = answerer(**call)
    assert answer["score"] == 0 and answer["answer"] and answer["answer"] in call["context"]
    assert [a["score"] for a in answerer(**call, top_k=5)] == [0] * 5
    impossible = answerer(**call, handle_impossible_answer=True)
    assert impossible == {"score": pytest.approx(1), "start": 0, "end": 0, "answer": ""}


def test_a_context_without_words_has_no_answer(answerer):
    for context in ("", "  "):
        assert answerer("Where?", context)["answer"] == ""
        assert [a["answer"] for a in answerer("Where?", context, top_k=3)] == [""]


@pytest.mark.parametrize("longest", [1, 2, 3])
def test_no_answer_is_longer_than_allowed(tmp_path, longest):
    answerer = ufbert.QuestionAnswerer(write_task(tmp_path, "BertForQuestionAnswering"))
    words = ["the", "cat", "a", "b", "c"]
    answers = answerer("who", " ".join(words), max_answer_len=longest, top_k=100)
    expected = {" ".join(words[i:j]) for i in range(5) for j in range(i + 1, min(i + longest, 5) + 1)}
    assert {answer["answer"] for answer in answers} == expected and len(answers) == len(expected)


def test_spans_are_ranked_by_their_product():
    rng = np.random.default_rng(0)
    start, end = rng.random((2, 9)).astype(np.float32)
    allowed = np.array([False, True, True, True, False, True, True, True, False])
    pairs = [(i, j) for i in range(9) for j in range(i, min(i + 3, 9)) if allowed[i] and allowed[j]]
    expected = sorted(((i, j, float(start[i] * end[j])) for i, j in pairs), key=lambda span: -span[2])
    assert best_spans(start, end, 100, 3, allowed) == expected
    assert best_spans(start, end, 4, 3, allowed) == expected[:4]
    assert best_spans(start, end, 4, 10**9, np.zeros(9, bool)) == []


def test_a_long_question_leaves_a_smaller_stride(answerer):
    """The default stride, half of max_seq_len, would not fit in what this question leaves."""
    question = "a " * 15
    context = "Nothing here. " * 30 + "John Smith lives in Brooklyn."
    answers = answerer(question, context, max_seq_len=30, top_k=1000, max_answer_len=2)
    assert any(answer["start"] >= 30 * 14 for answer in answers)
    with pytest.raises(InputError, match=r"doc_stride: .* shorten the question"):
        answerer(question, context, max_seq_len=30, doc_stride=15)
    with pytest.raises(InputError, match=r"question: expected at most 26 tokens, .* got 27; shorten it"):
        answerer("a " * 27, context, max_seq_len=30)


def test_short_contexts_run_together(answerer, monkeypatch):
    ran, run = [], encoder.Encoder.__call__
    monkeypatch.setattr(encoder.Encoder, "__call__", lambda self, batch: ran.append(len(batch)) or run(self, batch))
    contexts = [f"John lives in New York, number {number}." for number in range(32)]
    together = answerer("Where?", contexts)
    assert ran == [32]
    assert together == [answerer("Where?", context) for context in contexts]


def test_one_question_or_one_context_stands_for_all(answerer):
    contexts = ["John lives in New York.", "Maria moved to Berlin."]
    expected = [answerer("Where?", context) for context in contexts]
    assert answerer("Where?", contexts) == answerer("Where?", iter(contexts)) == expected
    assert list(answerer.stream("Where?", iter(contexts))) == expected
    questions = ["Where?", "Who?"]
    expected = [answerer(question, contexts[0]) for question in questions]
    assert answerer(questions, contexts[0]) == answerer(questions, contexts[:1]) == expected


@pytest.mark.parametrize(("count", "missing"), [(1, "question"), (3, "context")])
def test_a_pair_that_lacks_one_half(answerer, count, missing):
    questions = ["Where?"] * count
    with pytest.raises(InputError, match=f"context: expected one for each of {count} questions, got 2"):
        answerer(questions, ["John."] * 2)
    with pytest.raises(InputError, match=f"{missing}: expected one for '.*', number {min(count, 2)}, got no more"):
        answerer(iter(questions), iter(["John."] * 2))


def test_each_half_of_a_pair_is_checked(answerer):
    with pytest.raises(InputError, match="context: expected str, got NoneType as number 1"):
        answerer("Where?", ["John.", None])
    with pytest.raises(InputError, match="question: expected str, got int as number 0"):
        answerer([5], ["John."])
