"""Measure how near sentence encoders come to the one that they were made from.

Prints for the teacher and each model: the mean and the lowest cosine between
its embeddings and the teacher's; the share of the teacher's 10 nearest
neighbours that it keeps; how well it finds the other half of a text that was
cut in two (MRR@10); and, with --data, the rank correlation of its
similarities with people's scores. Needs the extra glue: pip install
'ufbert[glue]'.

  ufbert compare DENSE_FOLDER NEW_FOLDER --texts texts.txt
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from ..errors import InputError
from .options import add_precision, add_run, positive

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.usage = "%(prog)s TEACHER [MODEL ...] --texts TEXT [OPTIONS]"
    parser.add_argument("teacher", metavar="TEACHER", help="sentence-transformers folder to compare with")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="folders to compare")
    parser.add_argument(
        "--texts",
        required=True,
        metavar="TEXT",
        help="texts that no model was trained on, one a line: plain, .xz or .gz",
    )
    parser.add_argument("--max-texts", type=positive, metavar="N", help="read only the first N texts")
    parser.add_argument("--data", metavar="FOLDER", help="GLUE's download, for pairs of texts that people scored")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=["STS-B", "SICK-R"],
        metavar="TASK",
        help="tasks of --data to use (default: STS-B SICK-R)",
    )
    add_precision(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print how near each model comes to the teacher."""
    from ..compare import ScoredPairs, compare
    from ..glue import load_task, read_split
    from ..routes import Corpus

    scored = {}
    for name in arguments.tasks if arguments.data else ():
        task, folder = load_task(arguments.data, name)
        if not task.regression or not task.text_pair:
            raise InputError(f"--tasks: expected tasks of scored pairs, such as STS-B or SICK-R, got {name}")
        rows = read_split(task, task.dev[0], folder)
        scored[task.name] = ScoredPairs(
            [pair for pair in rows.texts if not isinstance(pair, str)], [float(label) for label in rows.labels]
        )
    texts = list(Corpus(arguments.texts, arguments.max_texts))
    results = compare(arguments.teacher, arguments.models, texts, scored, arguments.dtype, not arguments.quiet)
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return 0
    heads = ["model", "cosine", "lowest", "10 neighbours", "MRR@10", *(f"{name} Spearman" for name in scored)]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for result in results:
        figures = [f"{result.cosine:.4f}", f"{result.lowest_cosine:.3f}", f"{100 * result.neighbours:.1f} %"]
        figures += [f"{result.reciprocal_rank:.3f}", *(f"{value:.4f}" for value in result.spearman.values())]
        print(f"| {result.model} | " + " | ".join(figures) + " |")
    return 0
