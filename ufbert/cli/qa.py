"""Find the answer to a question in each text.

Prints for each text the best answer: its score, first and last character
(the end excluded), and words. Texts of any length are searched. The model
is a folder with a question-answering head.

  ufbert qa --model deepset/roberta-base-squad2 --question "Who?" "Maria moved to Berlin."
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..tasks import QuestionAnswerer
from .options import add_texts, positive
from .streams import write_results

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_texts(parser, overflow=False, suggested="deepset/roberta-base-squad2")
    parser.usage = "%(prog)s --model MODEL --question QUESTION [OPTIONS] [TEXT ...]"
    parser.add_argument("--question", required=True, help="the question, the same for all texts")
    parser.add_argument(
        "--handle-impossible-answer",
        action="store_true",
        help="also consider that a text has no answer, which is then printed as an empty one",
    )
    parser.add_argument(
        "--max-answer-len", type=positive, default=15, metavar="N", help="tokens of an answer at most (default: 15)"
    )
    parser.add_argument("--top-k", type=positive, default=1, metavar="N", help="answers for each text (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Write the answers to one question from each text."""
    task = QuestionAnswerer(arguments.model, arguments.dtype)

    def answers(texts: Iterator[str]) -> Iterator[Any]:
        results = task.stream(
            arguments.question,
            texts,
            top_k=arguments.top_k,
            max_answer_len=arguments.max_answer_len,
            handle_impossible_answer=arguments.handle_impossible_answer,
            batch_size=arguments.batch_size,
        )
        return ([result] for result in results) if arguments.top_k == 1 else results

    return write_results(arguments, _plain, "answers", answers)


def _plain(_: str, answers: list[dict[str, Any]]) -> str:
    return "\n".join(f"{a['score']:.4f}\t{a['start']}\t{a['end']}\t{a['answer']}" for a in answers)
