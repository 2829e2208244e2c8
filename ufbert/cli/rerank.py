"""Rank texts by how well they answer a query, with a cross-encoder.

A cross-encoder reads query and text together: slower than embeddings, and
more exact. Prints the texts with their scores, the best first. The model is
a folder with a classification head of one label.

  ufbert rerank --model cross-encoder/ms-marco-MiniLM-L6-v2 --query "How do plants make food?" --input texts.txt
"""

from __future__ import annotations

import argparse

from ..tasks import CrossEncoder
from .files import add_files, over_files, run_files
from .options import add_texts, positive
from .streams import open_writer, read_texts

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    formats = ("plain", "jsonl", "npy", "parquet")
    add_texts(parser, formats=formats, suggested="cross-encoder/ms-marco-MiniLM-L6-v2")
    add_files(parser, "--query-column", "the column of the queries, where each row has its own")
    parser.usage = "%(prog)s --model MODEL --query QUERY [OPTIONS] [TEXT ...]"
    parser.add_argument("--query", help="what the texts are ranked for")
    parser.add_argument("--top", type=positive, metavar="N", help="print only the N best texts")
    parser.add_argument(
        "--max-length", type=positive, metavar="N", help="tokens of query and text (default: the model's)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the texts, ranked; over files, the score of each row."""
    if over_files(arguments):
        options = {"max_length": arguments.max_length}
        return run_files(arguments, {"query": arguments.query}, options, arguments.query_column)
    task = CrossEncoder(arguments.model, arguments.max_length, None, arguments.on_overflow, arguments.dtype)
    texts = list(read_texts(arguments))
    show = not arguments.quiet and len(texts) > 1000
    ranked = task.rank(arguments.query, texts, arguments.top, False, arguments.batch_size, show)
    with open_writer(arguments, lambda text, score: f"{score:.4f}\t{text}", "score") as writer:
        for document in ranked:
            writer.write(texts[document["corpus_id"]], document["score"])
    return 0
