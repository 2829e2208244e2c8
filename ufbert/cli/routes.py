"""Show which ways tokens take through the trees of a model.

Runs a corpus through a model with FFF layers and prints for each layer how
many leaves are used, how evenly tokens are spread over them (the entropy in
bits, and as a share of the largest possible), how many nodes no token
visits, and how close decisions are (the margin: the size of a score whose
sign decides between the two children). Takes the same memory for any corpus.

  ufbert routes FOLDER --corpus texts.txt.xz --out REPORT
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from ..checkpoint.writing import whole_file
from ..errors import InputError
from ..routes import Corpus, record_routes
from ..routes.picture import check_matplotlib, draw
from ..routes.report import as_json, table
from .options import add_corpus, add_precision, add_run
from .streams import Watched

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_corpus(parser)
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="write all counts to FOLDER/routes.json and a picture to FOLDER/routes.png; needs the extra plot",
    )
    parser.add_argument("--trees", action="store_true", help="print a line for each tree of a layer too")
    add_precision(parser)
    add_run(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print leaves, entropy, unvisited nodes and margins of each layer."""
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
