"""Find named entities: people, places, organisations and what else a model knows.

Prints each text after a "#", and then a line for each entity: its label,
score, first and last character (the end excluded), and words. The model is
a folder with a token-classification head.

  ufbert ner --model dslim/bert-base-NER "Maria moved to Berlin."
"""

from __future__ import annotations

import argparse
from typing import Any

from ..tasks import TokenClassifier
from ..tasks.token_classifier import STRATEGIES
from .options import add_texts, natural
from .streams import write_results

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_texts(parser, suggested="dslim/bert-base-NER")
    parser.add_argument(
        "--aggregation-strategy",
        choices=STRATEGIES,
        default="simple",
        help="how tokens become entities: none (each token by itself), simple (neighbours of one label), or words that "
        "take the label of their first token, of the average or of the most certain token (default: simple)",
    )
    parser.add_argument(
        "--stride",
        type=natural,
        metavar="N",
        help="read long texts to their end, in windows that share N tokens (default: cut them, see --on-overflow)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the entities of each text."""
    task = TokenClassifier(arguments.model, arguments.dtype)
    strategy = arguments.aggregation_strategy
    options: dict[str, Any] = {"batch_size": arguments.batch_size, "on_overflow": arguments.on_overflow}
    options["stride"] = arguments.stride
    return write_results(arguments, _plain, "entities", lambda texts: task.stream(texts, strategy, **options))


def _plain(text: str, entities: list[dict[str, Any]]) -> str:
    rows = [
        f"{e.get('entity_group') or e.get('entity')}\t{e['score']:.4f}\t{e['start']}\t{e['end']}\t{e['word']}"
        for e in entities
    ]
    return "\n".join([f"# {text}", *rows])
