"""Options that several verbs share, and the checks before any work."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ..dense import DTYPES
from ..precision import AUTO
from ..text_model import MAX_BATCH_SIZE, ON_OVERFLOW

__all__ = [
    "PRECISIONS",
    "add_corpus",
    "add_device",
    "add_precision",
    "add_run",
    "add_texts",
    "batch_size",
    "check_model",
    "check_texts",
    "natural",
    "positive",
]


PRECISIONS = (*DTYPES, AUTO)


def positive(text: str) -> int:
    """Read an integer from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def natural(text: str) -> int:
    """Read an integer from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def batch_size(text: str) -> int:
    """Read an integer from 1 to the largest batch that tasks take."""
    value = positive(text)
    if value > MAX_BATCH_SIZE:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_BATCH_SIZE}")
    return value


def add_run(parser: argparse._ArgumentGroup | argparse.ArgumentParser, what: str = "no progress bar") -> None:
    """Add how a command runs: its threads, and whether it shows its progress."""
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads of the kernels (default: UFBERT_NUM_THREADS, else all CPUs)",
    )
    parser.add_argument("--quiet", action="store_true", help=what)


def add_precision(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add the precision of matrix multiplications."""
    parser.add_argument(
        "--dtype",
        choices=PRECISIONS,
        default="float32",
        help="precision of matrix multiplications; auto: the fastest on this CPU whose embeddings keep a cosine of "
        "0.99 to those in float32, as `ufbert info` says (default: float32)",
    )


def add_device(parser: argparse._ArgumentGroup | argparse.ArgumentParser) -> None:
    """Add where training runs."""
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda", "auto"),
        default="cpu",
        help="train on the CPU or on a GPU; auto: on a GPU if there is one (default: cpu)",
    )


def add_corpus(parser: argparse.ArgumentParser) -> None:
    """Add a model with trees and the texts to run through it."""
    parser.add_argument("model", metavar="MODEL", help="model folder with FFF layers")
    parser.add_argument(
        "--corpus",
        required=True,
        metavar="TEXT",
        help="texts to run, one text a line: plain, .xz or .gz; - for standard input, where it is read once",
    )
    parser.add_argument("--max-texts", type=positive, metavar="N", help="read only the first N texts")


def add_texts(
    parser: argparse.ArgumentParser,
    default_model: str | None = None,
    formats: Sequence[str] = ("plain", "jsonl"),
    overflow: bool = True,
    suggested: str = "",
) -> None:
    """Add what all verbs on texts have: the model, where texts come from, where results go.

    `suggested` is a model of the hub that a user without any may take, where no model is bundled.
    """
    parser.usage = f"%(prog)s {'' if default_model else '--model MODEL '}[OPTIONS] [TEXT ...]"
    parser.set_defaults(suggested=suggested)
    named = ", a bundled model's name, or ORGANISATION/NAME[@REVISION] of the Hugging Face hub"
    named += f" (default: {default_model})" if default_model else f", such as {suggested}"
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="texts; without any, --input or standard input is read"
    )
    parser.add_argument("--model", metavar="MODEL", help="model folder" + named)
    streams = parser.add_argument_group("input and output")
    streams.add_argument(
        "--input", metavar="FILE", help="read texts from FILE, one a line, UTF-8; - for standard input"
    )
    streams.add_argument(
        "--output",
        metavar="FILE",
        help="write results to FILE, which appears when it is complete; - for standard output (default)",
    )
    streams.add_argument("--format", choices=formats, help=_formats(formats))
    running = parser.add_argument_group("running")
    running.add_argument("--batch-size", type=batch_size, default=32, metavar="N", help="texts at once (default: 32)")
    add_precision(running)
    add_run(running)
    if overflow:
        running.add_argument(
            "--on-overflow",
            choices=ON_OVERFLOW,
            default="warn",
            help="what to do about texts longer than the model takes: cut them silently, cut them with a warning, or "
            "stop (default: warn)",
        )


def _formats(formats: Sequence[str]) -> str:
    known = {
        "plain": "plain: text for people",
        "jsonl": "jsonl: a JSON object a line",
        "npy": "npy: a NumPy array of embeddings",
        "parquet": "parquet: with --column",
    }
    return "; ".join(known[name] for name in formats) + " (default: by the ending of --output, else plain)"


def check_model(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse a call without a model, where none is bundled."""
    if arguments.model is None and arguments.suggested:
        parser.error(
            f"--model: expected a model, for none is bundled for {arguments.command}; this fetches one the first time "
            f"and keeps it: {parser.prog} --model {arguments.suggested} ..."
        )


def check_texts(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse before any work what cannot be read or written, and settle output and format."""
    check_model(parser, arguments)
    if arguments.texts and arguments.input:
        parser.error("expected TEXT or --input, got both; leave one out")
    if not arguments.texts and not arguments.input and sys.stdin is not None and sys.stdin.isatty():
        parser.error("expected texts as arguments, by --input FILE or on standard input, found no text")
    output = arguments.output = None if arguments.output == "-" else arguments.output
    if output is not None and (not os.path.basename(output) or os.path.isdir(output)):
        parser.error(f"--output: expected the name of a file, got the folder {output!r}")
    ending = os.path.splitext(output or "")[1]
    arguments.format = arguments.format or {".npy": "npy", ".jsonl": "jsonl"}.get(ending, "plain")
    if arguments.format == "npy":
        if arguments.command != "embed" or arguments.query is not None:
            parser.error("npy holds embeddings: expected it with embed, without --query; use --format jsonl")
        if output is None or (os.path.exists(output) and not os.path.isfile(output)):
            parser.error("--format npy needs --output FILE, and not a pipe or a device")
