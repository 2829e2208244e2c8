"""Extractive question answering: the span of a context that answers a question."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..activations import softmax
from ..errors import InputError
from .load import load_parts
from .run import check_batch_size, check_count, check_texts, hidden_states

__all__ = ["QuestionAnswerer"]

_UNDESIRED = np.float32(-10_000.0)


class Span(NamedTuple):
    """A piece of a context with its question, as the model sees it."""

    encoding: Any
    answerable: np.ndarray  # (S,) bool: tokens of the context, and the first special token

    @property
    def ids(self) -> list[int]:
        return self.encoding.ids

    @property
    def type_ids(self) -> list[int]:
        return self.encoding.type_ids


class QuestionAnswerer:
    """Answers questions from a context, with the results of transformers' question-answering pipeline.

    Parameters
    ----------
    folder : str or path
        A folder with a question-answering model and its tokenizer.
    dtype : {"float32", "bfloat16", "int8"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    """

    def __init__(self, folder: str | os.PathLike[str], dtype: str = "float32") -> None:
        self._model, self._head, self._tokenizer = load_parts(folder, "question-answering", dtype)

    def __call__(
        self,
        question: str | Sequence[str],
        context: str | Sequence[str],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
        max_seq_len: int | None = None,
        doc_stride: int | None = None,
        align_to_words: bool = True,
        batch_size: int = 32,
    ) -> Any:
        """Find answers. A context that is too long is read in overlapping spans; nothing is cut off.

        Parameters
        ----------
        question, context : str, or sequences of str of one length
        top_k : int
            How many answers to give.
        max_answer_len : int
            Tokens of an answer at most.
        handle_impossible_answer : bool
            Also consider that there is no answer, "".
        max_seq_len : int, optional
            Tokens of question and span together; by default 384, or what the model can take if that is less.
        doc_stride : int, optional
            Tokens that neighbouring spans share; by default 128, or half of `max_seq_len` if that is less.
        align_to_words : bool
            Stretch answers to whole words; equal answers then count as one, with the sum of their scores.
        batch_size : int
            Spans in one pass at most.

        Returns
        -------
        dict or list
            ``{score, start, end, answer}``, with ``top_k`` above 1 a list of them, best first; for sequences a list
            of those. ``start`` and ``end`` count characters of the context.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        top_k, max_answer_len = check_count(top_k, "top_k"), check_count(max_answer_len, "max_answer_len")
        batch_size = check_batch_size(batch_size)
        max_seq_len = check_count(384 if max_seq_len is None else max_seq_len, "max_seq_len")
        doc_stride = None if doc_stride is None else check_count(doc_stride, "doc_stride", 0)
        single = isinstance(question, str) and isinstance(context, str)
        pairs = _pairs(question, context)
        options = (top_k, max_answer_len, handle_impossible_answer, align_to_words)
        results = []
        for one_question, one_context in pairs:
            spans = self._spans(one_question, one_context, max_seq_len, doc_stride)
            answers = self._answers(one_context, spans, self._logits(spans, batch_size), *options)
            results.append(answers[0] if top_k == 1 else answers)
        return results[0] if single else results

    def _spans(self, question: str, context: str, max_seq_len: int, doc_stride: int | None) -> list[Span]:
        tokenizer = self._tokenizer
        asked, read = tokenizer.pieces(question), tokenizer.pieces(context)
        longest = min(max_seq_len, tokenizer.max_length)
        stride = min(longest // 2, 128) if doc_stride is None else doc_stride
        room = longest - len(asked.ids) - tokenizer.backend.num_special_tokens_to_add(True)
        if len(read.ids) > room and not 0 <= stride < room:
            raise InputError(
                f"doc_stride: expected from 0 to less than the {room} tokens that max_seq_len and the question leave "
                f"for the context, got {stride}; lower doc_stride, shorten the question, or raise max_seq_len"
            )
        pieces = [read]
        if len(read.ids) > room:
            read.truncate(room, stride=stride)
            pieces += read.overflowing
        spans = []
        for piece in pieces:
            encoding = tokenizer.backend.post_process(asked, piece)
            answerable = np.array([sequence == 1 for sequence in encoding.sequence_ids])
            answerable[0] = True  # "no answer"
            spans.append(Span(encoding, answerable))
        return spans

    def _logits(self, spans: list[Span], batch_size: int) -> list[np.ndarray]:
        logits: list[Any] = [None] * len(spans)
        for indices, batch, hidden in hidden_states(self._model, spans, batch_size):
            scores = self._head(hidden)  # (T, H) -> (T, 2)
            for at, index in enumerate(indices):
                logits[index] = scores[batch.cu_seqlens[at] : batch.cu_seqlens[at + 1]]
        return logits

    def _answers(
        self,
        context: str,
        spans: list[Span],
        logits: list[np.ndarray],
        top_k: int,
        longest: int,
        impossible: bool,
        align_to_words: bool,
    ) -> list[dict[str, Any]]:
        no_answer = 1_000_000.0
        candidates = 2 * top_k + 10 if align_to_words else top_k  # some turn out equal
        found: dict[str, dict[str, Any]] = {}
        for span, scores in zip(spans, logits, strict=True):
            masked = np.where(span.answerable[:, None], scores, _UNDESIRED)
            start, end = softmax(masked.T)  # (S,) each
            no_answer = min(no_answer, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            for first, last, score in best_spans(start, end, candidates, longest, span.answerable):
                answer = _characters(context, span.encoding, first, last, align_to_words)
                known = found.setdefault(answer["answer"].lower(), {"score": 0.0} | answer)
                known["score"] += score
        answers = list(found.values())
        if impossible:
            answers.append({"score": no_answer, "start": 0, "end": 0, "answer": ""})
        return sorted(answers, key=lambda answer: -answer["score"])[:top_k]


def best_spans(
    start: np.ndarray, end: np.ndarray, count: int, longest: int, answerable: np.ndarray
) -> list[tuple[int, int, float]]:
    """Rank the pairs start <= end of at most `longest` tokens by the product of their probabilities, best first."""
    products = np.tril(np.triu(np.outer(start, end)), min(longest, len(end)) - 1)  # (S, S)
    flat = products.reshape(-1)
    count = min(count, flat.size)
    best = np.argpartition(-flat, count - 1)[:count]
    best = best[np.argsort(-flat[best], kind="stable")]
    firsts, lasts = np.unravel_index(best, products.shape)
    keep = answerable[firsts] & answerable[lasts]
    return [(int(i), int(j), float(products[i, j])) for i, j in zip(firsts[keep], lasts[keep], strict=True)]


def _characters(context: str, encoding: Any, first: int, last: int, align_to_words: bool) -> dict[str, Any]:
    """Where a span of tokens stands in the context, perhaps stretched to whole words."""
    words = encoding.token_to_word(first), encoding.token_to_word(last)
    if None in words or not align_to_words:
        start, end = encoding.offsets[first][0], encoding.offsets[last][1]
    else:
        start = encoding.word_to_chars(words[0], sequence_index=1)[0]
        end = encoding.word_to_chars(words[1], sequence_index=1)[1]
    return {"start": start, "end": end, "answer": context[start:end]}


def _pairs(question: Any, context: Any) -> list[tuple[str, str]]:
    questions, contexts = check_texts(question, "question"), check_texts(context, "context")
    if len(questions) > 1 and len(contexts) == 1:
        contexts *= len(questions)
    if len(questions) != len(contexts):
        raise InputError(f"context: expected one for each of {len(questions)} questions, got {len(contexts)}")
    return list(zip(questions, contexts, strict=True))
