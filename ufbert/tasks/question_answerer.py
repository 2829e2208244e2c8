"""Extractive question answering: the span of a context that answers a question."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from itertools import repeat, zip_longest
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..activations import softmax
from ..checkpoint.folder import ModelFolder
from ..errors import InputError, shown
from ..heads import TokenClassifier
from ..text_model import WINDOW, check_batch_size, check_texts, each_text, windows
from .load import load_texts, top

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Answer", "QuestionAnswerer"]

_NONE = object()
_UNDESIRED = np.float32(-10_000.0)
Span = tuple[int, int, float]  # first and last token, probability


class Answer(TypedDict):
    """A part of a context: its probability, its first character, the one behind its last, and its text."""

    score: float
    start: int
    end: int
    answer: str


@dataclass(frozen=True)
class _Options:
    """One call's settings, checked."""

    top_k: int
    max_answer_len: int
    handle_impossible_answer: bool
    max_seq_len: int
    doc_stride: int | None
    align_to_words: bool
    batch_size: int


class QuestionAnswerer:
    """Answers questions from a context, with the results of transformers' question-answering pipeline.

    Parameters
    ----------
    folder : str or path
        A folder with a question-answering model and its tokenizer.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    """

    def __init__(self, folder: str | os.PathLike[str], dtype: str = "float32") -> None:
        self._texts = load_texts(ModelFolder(folder), "question-answering", dtype)

    def __call__(
        self,
        question: str | Iterable[str],
        context: str | Iterable[str],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        align_to_words: bool = True,
        batch_size: int = 32,
    ) -> Answer | list[Answer] | list[list[Answer]]:
        """Find answers. A context that is too long is read in overlapping spans; nothing is cut off.

        Parameters
        ----------
        question, context : str, or iterables of str of one length
            One str beside an iterable stands for all of its elements.
        top_k : int
            How many answers to give.
        max_answer_len : int
            Tokens of an answer at most.
        handle_impossible_answer : bool
            Also consider that there is no answer, "".
        max_seq_len : int, optional
            Tokens of question and span together; by default 384, or what the model can take if that is less.
        doc_stride : int, optional
            Tokens that neighbouring spans share; by default 128, or half of `max_seq_len` if that is less, or half of
            what a long question leaves for the context.
        align_to_words : bool
            Stretch answers to whole words; equal answers then count as one, with the sum of their scores.
        batch_size : int
            Spans in one forward pass at most.

        Returns
        -------
        dict or list
            ``{score, start, end, answer}``, with ``top_k`` above 1 a list of them, best first; for several questions
            or contexts a list of those. ``start`` and ``end`` count characters of the context. Fewer than `top_k`
            where the context has fewer spans; the score of an answer is 0 where the model is certain of none.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        options = _options(
            top_k, max_answer_len, handle_impossible_answer, max_seq_len, doc_stride, align_to_words, batch_size
        )
        ranked = list(self._ranked(question, context, options, WINDOW))
        results = [answers[0] for answers in ranked] if top_k == 1 else ranked
        return results[0] if isinstance(question, str) and isinstance(context, str) else results

    def stream(
        self,
        question: str | Iterable[str],
        context: str | Iterable[str],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        align_to_words: bool = True,
        batch_size: int = 32,
    ) -> Iterator[Answer] | Iterator[list[Answer]]:
        """Answer any number of questions, holding `batch_size` of them at a time.

        Parameters are those of a call; memory does not grow with the number of texts.

        Yields
        ------
        ``{score, start, end, answer}``, or a list of them
            What a call gives for each question, in order: a list unless ``top_k=1``.
        """
        options = _options(
            top_k, max_answer_len, handle_impossible_answer, max_seq_len, doc_stride, align_to_words, batch_size
        )
        ranked = self._ranked(question, context, options, 0)
        return (answers[0] for answers in ranked) if top_k == 1 else ranked

    def _ranked(
        self, question: str | Iterable[str], context: str | Iterable[str], options: _Options, window: int
    ) -> Iterator[list[Answer]]:
        pairs = windows(_pairs(question, context), max(window, options.batch_size))
        return (answers for pair in pairs for answers in self._answer_window(pair, options))

    def _answer_window(self, pairs: list[tuple[str, str]], options: _Options) -> Iterator[list[Answer]]:
        """Run the spans of all pairs together."""
        spans = [self._spans(question, context, options) for question, context in pairs]
        flat = [encoding for of_pair in spans for encoding in of_pair]
        logits: dict[int, NDArray[np.float32]] = {}
        head = self._texts.model.head
        assert isinstance(head, TokenClassifier)
        for run in self._texts.run(flat, options.batch_size):
            logits.update(run.split(head(run.hidden)))  # (T, H) -> (T, 2)
        found = ((encoding, logits.pop(index)) for index, encoding in enumerate(flat))
        for (_, context), of_pair in zip(pairs, spans, strict=True):
            yield _answers(context, [next(found) for _ in of_pair], options)

    def _spans(self, question: str, context: str, options: _Options) -> list[Encoding]:
        """Tokenise a question with its context, in overlapping spans where the context is long."""
        tokenizer = self._texts.tokenizer
        asked, read = tokenizer.pieces([question, context])
        longest = min(options.max_seq_len, self._texts.max_length)
        room = longest - len(asked) - tokenizer.num_special_tokens(pair=True)
        if room < 1:
            most = longest - tokenizer.num_special_tokens(pair=True) - 1
            raise InputError(
                f"question: expected at most {most} tokens, for max_seq_len is {longest} and the context needs one, "
                f"got {len(asked)}; shorten it, or raise max_seq_len"
            )
        pieces = [read]
        if len(read) > room:
            stride = min(longest // 2, 128) if options.doc_stride is None else options.doc_stride
            if options.doc_stride is None and stride >= room:
                stride = room // 2
            if stride >= room:
                raise InputError(
                    f"doc_stride: expected from 0 to less than the {room} tokens that max_seq_len and the question "
                    f"leave for the context, got {stride}; lower doc_stride, shorten the question, or raise max_seq_len"
                )
            read.truncate(room, stride=stride)
            pieces += read.overflowing
        return [tokenizer.processor.process(asked, piece) for piece in pieces]


def _options(
    top_k: int, max_answer_len: int, handle_impossible_answer: bool, max_seq_len: int | None, doc_stride: int | None,
    align_to_words: bool, batch_size: int,
) -> _Options:  # fmt: skip
    return _Options(
        checks.integer(top_k, "top_k", 1),
        checks.integer(max_answer_len, "max_answer_len", 1),
        handle_impossible_answer,
        384 if max_seq_len is None else checks.integer(max_seq_len, "max_seq_len", 1),
        None if doc_stride is None else checks.integer(doc_stride, "doc_stride", 0),
        align_to_words,
        check_batch_size(batch_size),
    )


def _answers(context: str, spans: list[tuple[Encoding, NDArray[np.float32]]], options: _Options) -> list[Answer]:
    """Rank the answers of one context by the logits (S, 2) of its spans."""
    no_answer = 1_000_000.0
    candidates = 2 * options.top_k + 10 if options.align_to_words else options.top_k  # some turn out equal
    found: dict[str, Answer] = {}
    for encoding, scores in spans:
        in_context = np.array([sequence == 1 for sequence in encoding.sequence_ids])
        read = in_context.copy()
        read[0] = True  # "no answer"
        start, end = softmax(np.where(read[:, None], scores, _UNDESIRED).T)  # (S,) each
        no_answer = min(no_answer, float(start[0] * end[0]))
        for first, last, score in best_spans(start, end, candidates, options.max_answer_len, in_context):
            answer = _characters(context, encoding, first, last, options.align_to_words)
            if answer["answer"]:  # a token may stand for a space that is trimmed
                found.setdefault(answer["answer"].lower(), answer)["score"] += score
    answers = list(found.values())
    if options.handle_impossible_answer or not answers:  # an empty context has no spans
        answers.append({"score": no_answer, "start": 0, "end": 0, "answer": ""})
    return sorted(answers, key=lambda answer: -answer["score"])[: options.top_k]


def best_spans(
    start: NDArray[np.float32], end: NDArray[np.float32], count: int, longest: int, in_context: NDArray[np.bool_]
) -> list[Span]:
    """Rank the spans of at most `longest` tokens by the product of their ends' probabilities, best first.

    Parameters
    ----------
    start, end : (S,) float32 arrays
        Probability that the answer begins, or ends, with each token.
    count : int
        How many spans to give at most.
    longest : int
    in_context : (S,) bool array
        Tokens with which an answer may begin or end.

    Returns
    -------
    list of (int, int, float)
        First token, last token, product.
    """
    longest = min(longest, len(start))
    lasts = np.add.outer(np.arange(len(start)), np.arange(longest))  # row i: the tokens i to i + longest - 1
    inside = np.minimum(lasts, len(start) - 1)
    allowed = in_context[:, None] & in_context[inside] & (inside == lasts)
    products = np.where(allowed, start[:, None] * end[inside], np.float32(-1))  # (S, longest)
    best = top(products.reshape(-1), min(count, int(allowed.sum()) or 1))
    firsts, offsets = np.unravel_index(best, products.shape)
    spans = zip(firsts.tolist(), offsets.tolist(), strict=True)
    return [(i, i + offset, float(products[i, offset])) for i, offset in spans if allowed[i, offset]]


def _characters(context: str, encoding: Encoding, first: int, last: int, align_to_words: bool) -> Answer:
    """Say where a span of tokens stands in the context, perhaps stretched to whole words; its score is 0 so far."""
    start, first_end = encoding.token_to_chars(first) or (0, 0)
    last_start, end = encoding.token_to_chars(last) or (0, 0)
    if align_to_words:
        start = _word(context, encoding, first, start, first_end)[0]
        end = _word(context, encoding, last, last_start, end)[1]
    return {"score": 0.0, "start": start, "end": end, "answer": context[start:end]}


def _word(context: str, encoding: Encoding, token: int, start: int, end: int) -> tuple[int, int]:
    """Stretch a token's characters to its word, or up to spaces, where the tokenizer does not split at these."""
    number = encoding.token_to_word(token)
    first, last = (None if number is None else encoding.word_to_chars(number, sequence_index=1)) or (start, end)
    if len(context[first:last].split()) < 2:
        return first, last
    while start > first and not (context[start - 1].isspace() or context[start : start + 1].isspace()):
        start -= 1
    while end < last and not context[end].isspace():
        end += 1
    return start, end


def _pairs(question: str | Iterable[str], context: str | Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give questions with their contexts, each checked when it is read."""
    if isinstance(question, str) and isinstance(context, str):
        return iter([(question, context)])
    if isinstance(question, Sized) and isinstance(context, Sized) and not isinstance(question, str):
        if not isinstance(context, str) and len(context) == 1 < len(question):
            (context,) = check_texts(context, "context")
        elif not isinstance(context, str) and len(question) != len(context):
            raise InputError(f"context: expected one for each of {len(question)} questions, got {len(context)}")
    questions = repeat(question) if isinstance(question, str) else each_text(question, "question")
    contexts = repeat(context) if isinstance(context, str) else each_text(context, "context")
    if isinstance(question, str) or isinstance(context, str):
        return _checked(zip(questions, contexts, strict=False))
    return _checked(zip_longest(questions, contexts, fillvalue=_NONE))


def _checked(pairs: Iterable[tuple[object, object]]) -> Iterator[tuple[str, str]]:
    """Check pairs one by one, with `_NONE` in the place of what is missing."""
    for number, pair in enumerate(pairs):
        for name, text, other in (("question", *pair), ("context", *pair[::-1])):
            if text is _NONE:
                raise InputError(f"{name}: expected one for {shown(other)}, number {number}, got no more")
            if not isinstance(text, str):
                raise InputError(f"{name}: expected str, got {type(text).__name__} as number {number}: {shown(text)}")
        yield pair  # type: ignore[misc]
