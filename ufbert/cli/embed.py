"""Turn texts into embeddings, or rank them by similarity to a query.

An embedding is a vector that stands for the meaning of a text: texts of near
meaning have vectors of near direction. Without --query, one embedding is
written for each text. With --query, the texts are printed in the order of
their similarity to it, the most similar first, with their cosine.

  ufbert embed --input texts.txt --output embeddings.npy
  ufbert embed --input 'data/*.parquet' --column text --output embeddings/ --resume
  ufbert embed --query "How do plants make food?" --top 3 --input texts.txt
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from ..errors import InputError
from ..tasks import SentenceEncoder
from .files import add_files, over_files, run_files
from .options import add_texts, positive
from .streams import open_writer, read_texts, write_results

__all__ = ["add_arguments", "run"]

KINDS = {"float32": "<f4", "binary": "|i1", "ubinary": "|u1"}  # those that need no ranges; of their arrays


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_texts(
        parser, default_model="the default encoder of ufbert-weights", formats=("plain", "jsonl", "npy", "parquet")
    )
    add_files(parser)
    parser.add_argument("--query", help="rank the texts by their similarity to this one")
    parser.add_argument("--top", type=positive, metavar="N", help="with --query: print only the N most similar texts")
    parser.add_argument("--normalize", action="store_true", help="scale embeddings to length 1")
    parser.add_argument(
        "--precision",
        choices=tuple(KINDS),
        default="float32",
        help="of the embeddings: binary and ubinary are signs, 8 to a byte, as ufbert.quantize_embeddings makes them "
        "(default: float32)",
    )
    parser.add_argument("--truncate-dim", type=positive, metavar="N", help="keep the first N dimensions")
    parser.add_argument("--max-seq-length", type=positive, metavar="N", help="tokens of a text (default: the model's)")
    parser.add_argument("--prompt", help="put this before each text")
    parser.add_argument("--prompt-name", metavar="NAME", help="put the model's prompt of this name before each text")
    parser.add_argument(
        "--pooling",
        help="how token vectors become an embedding, where the model does not say: cls, mean, lasttoken, ...",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write embeddings, or with --query a ranking."""
    options = {
        "normalize_embeddings": arguments.normalize,
        "truncate_dim": arguments.truncate_dim,
        "prompt": arguments.prompt,
        "prompt_name": arguments.prompt_name,
    }
    if arguments.precision != "float32" and (arguments.query is not None or over_files(arguments)):
        raise InputError(
            f"--precision: expected float32 with --query and with --column, got {arguments.precision}; leave it out"
        )
    if over_files(arguments):
        return run_files(arguments, options, {"max_seq_length": arguments.max_seq_length, "pooling": arguments.pooling})
    options["batch_size"] = arguments.batch_size
    encoder = SentenceEncoder(
        arguments.model, arguments.max_seq_length, arguments.pooling, arguments.on_overflow, arguments.dtype
    )
    if arguments.query is not None:
        return _rank(encoder, arguments, options)
    width, options["precision"] = (
        min(arguments.truncate_dim or encoder.dimension, encoder.dimension),
        arguments.precision,
    )
    width = width if arguments.precision == "float32" else -(-width // 8)
    return write_results(
        arguments,
        _plain,
        "embedding",
        lambda texts: encoder.stream(texts, **options),
        width,
        KINDS[arguments.precision],
    )


def _rank(encoder: SentenceEncoder, arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    texts = list(read_texts(arguments))
    query = encoder.encode(arguments.query, **options)
    embeddings = encoder.encode(texts, show_progress_bar=not arguments.quiet and len(texts) > 1000, **options)
    scores = encoder.similarity(query, embeddings)[0]
    order = np.argsort(-scores, kind="stable")[: arguments.top]
    with open_writer(arguments, lambda text, score: f"{score:.4f}\t{text}", "score") as writer:
        for index in order:
            writer.write(texts[index], float(scores[index]))
    return 0


def _plain(_: str, row: np.ndarray) -> str:
    return " ".join(f"{value:.7g}" for value in row)
