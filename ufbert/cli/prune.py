"""Copy a model folder without the tree nodes that a corpus never visits.

Runs the corpus through the model, drops the unvisited nodes of its FFF
layers, and runs the corpus again through the smaller model: the new folder
is kept only if every hidden state is the same, bit for bit. A dropped node
counts as zero, so other texts may lose a little: use a large corpus of the
kind of text that the model will see.

  ufbert prune FOLDER --corpus texts.txt.xz --out NEW_FOLDER
"""

from __future__ import annotations

import argparse

from ..errors import InputError
from ..routes import Corpus, Pruned, prune
from .options import PRECISIONS, add_corpus, add_run
from .streams import Watched

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_corpus(parser)
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace a model folder of that name")
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=PRECISIONS,
        default=["float32"],
        help="precisions to run the corpus in: a node stays if a token visits it in any of them (default: float32)",
    )
    add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the smaller folder and print what was saved."""
    corpus = Corpus(arguments.corpus, arguments.max_texts)
    if not corpus.is_file:
        raise InputError(
            f"{corpus.name}: expected a file, which can be read a second time for the proof; "
            "write the texts to a file first"
        )
    _show(prune(arguments.model, Watched(corpus, arguments), arguments.out, arguments.dtype, arguments.force))
    return 0


def _show(pruned: Pruned) -> None:
    line = "{:>5}  {:>9}  {:>9}  {:>9}  {:>6}  {:>12}  {:>12}"
    print(line.format("layer", "nodes", "kept", "dropped", "%", "bytes", "bytes now"))
    totals = [0, 0, 0, 0]
    for index, layer in enumerate(pruned.layers):
        figures = [layer.num_nodes, layer.kept, layer.bytes_before, layer.bytes_after]
        totals = [total + figure for total, figure in zip(totals, figures, strict=True)]
        print(line.format(index, *_figures(*figures)))
    print(line.format("all", *_figures(*totals)))
    print(
        f"{pruned.folder}: on {pruned.num_texts} texts, {pruned.num_tokens} tokens, all hidden states are bitwise "
        f"those of the original ({', '.join(pruned.dtypes)}; {pruned.instruction_set})"
    )


def _figures(nodes: int, kept: int, before: int, after: int) -> tuple[int, int, int, str, int, int]:
    return nodes, kept, nodes - kept, f"{100 * (1 - kept / nodes):.1f}", before, after
