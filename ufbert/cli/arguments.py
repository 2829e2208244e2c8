"""The arguments of the command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..convert import DTYPES
from ..dense import DTYPES as PRECISIONS
from ..tasks.run import MAX_BATCH_SIZE, ON_OVERFLOW
from ..tasks.token_classifier import STRATEGIES

__all__ = ["parse"]


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; print help or complaints and exit where argparse does."""
    parser = argparse.ArgumentParser(
        prog="ufbert",
        description="BERT encoders and UltraFastBERT on a CPU: embeddings, masks, labels, entities, answers.",
        epilog="Texts come from the arguments, from --input FILE (one a line), or from standard input.",
    )
    parser.add_argument("--version", action="version", version=f"ufbert {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _embed(commands.add_parser("embed", help="sentence embeddings, or texts ranked by similarity to a query"))
    _fill_mask(commands.add_parser("fill-mask", help="what stands at [MASK]"))
    _classify(commands.add_parser("classify", help="labels of texts or pairs of texts"))
    _ner(commands.add_parser("ner", help="named entities"))
    _qa(commands.add_parser("qa", help="answers to a question from each text"))
    _info(commands.add_parser("info", help="version, instruction set, threads, BLAS, OpenMP"))
    _convert(commands.add_parser("convert", help="copy a model folder with its weights in another dtype"))
    _glue(commands.add_parser("glue", help="GLUE: score classifiers, probe or fine-tune encoders"))
    _routes(commands.add_parser("routes", help="which ways tokens take through a model's trees"))
    _prune(commands.add_parser("prune", help="copy a model folder without the nodes that a corpus never visits"))
    _distill(commands.add_parser("distill", help="replace a dense BERT's feed-forward layers by trees, and train them"))
    _compare(commands.add_parser("compare", help="how near sentence encoders come to their teacher"))
    arguments = parser.parse_args(argv)
    if hasattr(arguments, "input"):  # the commands on texts
        _check_streams(parser, arguments)
    return arguments


def _check_streams(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse before any work what cannot be read or written, and settle output and format."""
    if arguments.texts and arguments.input:
        parser.error("expected TEXT or --input, got both; leave one out")
    if not arguments.texts and not arguments.input and sys.stdin is not None and sys.stdin.isatty():
        parser.error("expected texts as arguments, by --input FILE or on standard input, found none")
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


def _embed(parser: argparse.ArgumentParser) -> None:
    _texts(parser, default_model="the bundled all-MiniLM-L6-v2-fff-30x7", formats=("plain", "jsonl", "npy"))
    parser.add_argument("--query", help="print the texts ranked by similarity to this one, instead of embeddings")
    parser.add_argument("--top", type=_positive, metavar="N", help="with --query: only the N most similar texts")
    parser.add_argument("--normalize", action="store_true", help="scale embeddings to length 1")
    parser.add_argument("--truncate-dim", type=_positive, metavar="N", help="keep the first N dimensions")
    parser.add_argument("--max-seq-length", type=_positive, metavar="N", help="tokens of a text (default: the model's)")
    parser.add_argument("--prompt", help="text to put before each text")
    parser.add_argument("--prompt-name", metavar="NAME", help="one of the model's prompts")
    parser.add_argument("--pooling", help="cls, mean, max or mean_sqrt_len, where the model does not say")


def _fill_mask(parser: argparse.ArgumentParser) -> None:
    _texts(parser)
    parser.add_argument("--top-k", type=_positive, default=5, metavar="N", help="tokens to give (default: 5)")


def _classify(parser: argparse.ArgumentParser) -> None:
    _texts(parser, default_model="the bundled sentiment classifier")
    parser.add_argument("--top-k", type=_positive, default=1, metavar="N", help="labels to give (default: 1)")
    parser.add_argument("--pairs", action="store_true", help="each text is a pair, separated by a tab")


def _ner(parser: argparse.ArgumentParser) -> None:
    _texts(parser)
    parser.add_argument("--aggregation-strategy", choices=STRATEGIES, default="simple", help="default: simple")


def _qa(parser: argparse.ArgumentParser) -> None:
    _texts(parser, overflow=False)
    parser.add_argument("--question", required=True)
    parser.add_argument("--top-k", type=_positive, default=1, metavar="N", help="answers to give (default: 1)")


def _info(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="model folder")
    parser.add_argument("target", help="folder to make")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="default: float16")


def _glue(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Scores a classifier folder, a folder of them named as their tasks, or, by a linear probe, an encoder; with "
        "--finetune fine-tunes the encoder first. The bare command needs the extra glue, --finetune also train."
    )
    parser.add_argument("--model", required=True, metavar="FOLDER", help="classifier, several of them, or encoder")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="GLUE's download: a folder for each task")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="CoLA, SST-2, ... (default: all that are there)")
    parser.add_argument("--out", metavar="FOLDER", help="for results, predictions of test sets, classifiers")
    parser.add_argument("--finetune", action="store_true", help="train a classifier for each task first")
    parser.add_argument("--seeds", type=_positive, default=1, metavar="N", help="fine-tune so often (default: 1)")
    parser.add_argument("--epochs", type=_positive, default=5, metavar="N", help="default: 5")
    parser.add_argument("--learning-rate", type=float, default=1e-4, metavar="RATE", help="default: 1e-4")
    parser.add_argument("--max-seq-length", type=_positive, default=128, metavar="N", help="in training (default: 128)")
    parser.add_argument("--top-layers", type=int, metavar="N", help="train the last N layers, save them alone")
    parser.add_argument("--save-dtype", choices=("float32", "float16"), default="float32", help="default: float32")
    parser.add_argument("--pooling", help="for the probe: cls, mean, max or mean_sqrt_len, where the model is silent")
    parser.add_argument("--batch-size", type=_batch_size, default=32, metavar="N", help="in scoring (default: 32)")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="of scoring (default: float32)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads of the kernels")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def _routes(parser: argparse.ArgumentParser) -> None:
    _corpus(parser)
    parser.add_argument("--out", metavar="FOLDER", help="write routes.json and routes.png there (extra: plot)")
    parser.add_argument("--trees", action="store_true", help="a line for each tree of a layer too")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="precision (default: float32)")


def _prune(parser: argparse.ArgumentParser) -> None:
    _corpus(parser)
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder to make")
    parser.add_argument("--force", action="store_true", help="replace a model folder of that name")
    parser.add_argument(
        "--dtype",
        nargs="+",
        choices=PRECISIONS,
        default=["float32"],
        help="precisions in which the corpus is run: a node stays if it is visited in one (default: float32)",
    )


def _distill(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Needs the extra train. Checkpoints, log and curves are in OUT.training; the same command goes on from there."
    )
    parser.add_argument("teacher", metavar="TEACHER", help="dense model folder")
    parser.add_argument("--corpus", required=True, metavar="TEXT", help="one text a line: plain, .xz or .gz")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder to make")
    parser.add_argument("--start", metavar="FOLDER",
                        help="go on from a converted model, end to end only; it may have fewer trees")  # fmt: skip
    parser.add_argument("--trees", dest="num_trees", type=_positive, metavar="P", help="of a layer (default: 16)")
    parser.add_argument("--depth", type=int, metavar="D", help="levels below the root (default: 7)")
    parser.add_argument("--control", choices=("none", "affine", "dense"), help="train this instead, in the same way")
    parser.add_argument("--no-decision-gradient", dest="decision_gradient", action="store_const", const=False,
                        help="train deciding nodes by their activation alone, as the authors do")  # fmt: skip
    parser.add_argument("--switch-cost", type=float, metavar="COST",
                        help="charged to paths not taken, in deviations of the loss (default: 0.2)")  # fmt: skip
    parser.add_argument("--grow-tokens", type=int, metavar="N", help="to grow trees, times trees (default: 400,000)")
    parser.add_argument("--local-tokens", type=int, metavar="N", help="to train layer by layer (default: 2 million)")
    parser.add_argument("--tokens", type=int, metavar="N", help="to train end to end (default: 4 million)")
    parser.add_argument("--chunks", type=int, metavar="N",
                        help="of 4,096 texts, gone through again and again (default: ever new ones)")  # fmt: skip
    parser.add_argument("--keep-outputs", metavar="FOLDER",
                        help="keep the teacher's outputs here, for runs with the same seed and corpus")  # fmt: skip
    parser.add_argument("--batch-tokens", type=_positive, metavar="N", help="of a step (default: 4096)")
    parser.add_argument("--max-length", type=_positive, metavar="N", help="tokens of a text (default: 128)")
    parser.add_argument("--local-rate", type=float, metavar="RATE", help="layer by layer (default: 0.003)")
    parser.add_argument("--rate", type=float, metavar="RATE", help="end to end, of the trees (default: 0.001)")
    parser.add_argument("--other-rate", type=float, metavar="RATE", help="of attention and norms (default: 0.0005)")
    parser.add_argument(
        "--embedding-rate", type=float, metavar="RATE", help="of embedding tables (default: 0.0002; 0: the teacher's)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="default: 0")
    parser.add_argument("--teacher-dtype", choices=PRECISIONS, default="float32", help="default: float32")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads of PyTorch and the kernels")


def _compare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Needs the extra glue."
    parser.add_argument("teacher", metavar="TEACHER", help="sentence-transformers folder")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="folders to compare with it")
    parser.add_argument("--texts", required=True, metavar="TEXT", help="one a line, that no model was trained on")
    parser.add_argument("--max-texts", type=_positive, metavar="N", help="only the first N texts")
    parser.add_argument("--data", metavar="FOLDER", help="GLUE's download, for pairs that people scored")
    parser.add_argument("--tasks", nargs="+", default=["STS-B", "SICK-R"], metavar="TASK", help="default: STS-B SICK-R")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="of the models (default: float32)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads of the kernels")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="model folder with FFF layers")
    parser.add_argument(
        "--corpus",
        required=True,
        metavar="TEXT",
        help="one text a line: plain, .xz or .gz; - for standard input, where it is read once",
    )
    parser.add_argument("--max-texts", type=_positive, metavar="N", help="only the first N texts")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads of the kernels")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _texts(
    parser: argparse.ArgumentParser,
    default_model: str | None = None,
    formats: Sequence[str] = ("plain", "jsonl"),
    overflow: bool = True,
) -> None:
    """Add what all commands on texts have."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="texts; none: read --input or standard input")
    default = f" (default: {default_model})" if default_model else ""
    parser.add_argument("--model", required=not default_model, metavar="FOLDER", help="model folder" + default)
    parser.add_argument("--input", metavar="FILE", help="one text a line, UTF-8; - for standard input")
    parser.add_argument("--output", metavar="FILE", help="written beside and renamed; - for standard output (default)")
    parser.add_argument("--format", choices=formats, help="default: by the output's ending, else plain")
    parser.add_argument("--batch-size", type=_batch_size, default=32, metavar="N", help="default: 32")
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="precision (default: float32)")
    parser.add_argument("--threads", type=_positive, metavar="N", help="threads of the kernels")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    if overflow:
        parser.add_argument("--on-overflow", choices=ON_OVERFLOW, default="warn", help="texts too long (default: warn)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _batch_size(text: str) -> int:
    value = _positive(text)
    if value > MAX_BATCH_SIZE:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_BATCH_SIZE}")
    return value
