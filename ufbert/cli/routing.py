"""The commands about the ways through trees: ``routes`` and ``prune``."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from ..checkpoint.writing import whole_file
from ..errors import InputError
from ..routes import Corpus, Pruned, prune, record_routes
from ..routes.picture import check_matplotlib, draw
from ..routes.report import as_json, table

__all__ = ["prune_model", "show_routes"]


class Watched:
    """A corpus with a progress bar on stderr, where a person is looking at it, each time it is read."""

    def __init__(self, corpus: Corpus, arguments: argparse.Namespace) -> None:
        self.corpus, self.command = corpus, arguments.command
        self.quiet = arguments.quiet or sys.stderr is None or not sys.stderr.isatty()

    def __iter__(self) -> Iterator[str]:
        from tqdm import tqdm

        yield from tqdm(self.corpus, self.command, self.corpus.max_texts, disable=self.quiet, unit="text")


def show_routes(arguments: argparse.Namespace) -> int:
    """Leaves, entropy, dead nodes and margins of a model's trees on a corpus."""
    corpus = Corpus(arguments.corpus, arguments.max_texts)
    folder = None
    if arguments.out is not None:
        check_matplotlib()  # before the work, not after it
        folder = Path(arguments.out)
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: expected a folder for routes.json and routes.png, found a file")
    routes = record_routes(arguments.model, Watched(corpus, arguments), arguments.dtype)
    print(table(routes, arguments.trees))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        picture = io.BytesIO()
        draw(routes, picture)
        for name, content in (("json", (json.dumps(as_json(routes)) + "\n").encode()), ("png", picture.getvalue())):
            with whole_file(folder / f"routes.{name}") as part:
                part.write_bytes(content)
    return 0


def prune_model(arguments: argparse.Namespace) -> int:
    """A model folder without the nodes that a corpus never visits."""
    corpus = Corpus(arguments.corpus, arguments.max_texts)
    if not corpus.is_file:
        raise InputError(
            f"{corpus.name}: expected a file, which can be read a second time for the proof, got none; "
            "write the texts to a file first"
        )
    texts = Watched(corpus, arguments)
    _show_pruned(prune(arguments.model, texts, arguments.out, arguments.dtype, arguments.force))
    return 0


def _show_pruned(pruned: Pruned) -> None:
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
        f"those of the original ({', '.join(pruned.dtypes)})"
    )


def _figures(nodes: int, kept: int, before: int, after: int) -> tuple[int, int, int, str, int, int]:
    return nodes, kept, nodes - kept, f"{100 * (1 - kept / nodes):.1f}", before, after
