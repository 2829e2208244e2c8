"""Find the tokens that fit best at [MASK].

Prints for each text the most probable tokens, each with its probability and
the filled-in text. The model is a folder with a masked-language-model head.

  ufbert fill-mask --model google-bert/bert-base-uncased "The [MASK] sat on the mat."
"""

from __future__ import annotations

import argparse
from typing import Any

from ..tasks import FillMask
from .options import add_texts, positive
from .streams import write_results

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_texts(parser, suggested="google-bert/bert-base-uncased")
    parser.add_argument("--top-k", type=positive, default=5, metavar="N", help="tokens for each mask (default: 5)")
    parser.add_argument(
        "--targets", metavar="TOKEN,...", help="rank only these tokens, separated by commas (default: all)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the best tokens for each mask."""
    task = FillMask(arguments.model, arguments.dtype)
    targets = None if arguments.targets is None else arguments.targets.split(",")
    options = {"batch_size": arguments.batch_size, "on_overflow": arguments.on_overflow, "targets": targets}
    return write_results(arguments, _plain, "fills", lambda texts: task.stream(texts, arguments.top_k, **options))


def _plain(_: str, fills: list[Any]) -> str:
    rows = fills if isinstance(fills[0], dict) else [fill for mask in fills for fill in mask]
    return "\n".join(f"{fill['score']:.4f}\t{fill['token_str']}\t{fill['sequence']}" for fill in rows)
