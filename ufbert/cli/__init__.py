"""The command ``ufbert``: one module for each verb, with its arguments beside what it does.

The first line of a module's docstring is the verb's line in ``ufbert --help``; the whole is what ``ufbert VERB --help``
says before the arguments.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from .. import __version__
from ..errors import InputError, UfbertError
from .streams import complain, discard_unwritten

__all__ = ["main"]

VERBS = {
    "Run a model on texts": ("embed", "classify", "fill-mask", "ner", "qa", "rerank", "serve"),
    "Make and examine models": ("download", "convert", "distill", "routes", "prune", "compare", "glue"),
    "Other": ("info", "doctor"),
}
DESCRIPTION = """\
BERT encoders on a CPU: sentence embeddings, classification, fill-mask, named
entities and question answering, and UltraFastBERT, whose feed-forward layers
are binary trees of neurons (FFF).
"""
EPILOG = """
"ufbert COMMAND --help" describes a command. A model folder is one of
Hugging Face transformers, sentence-transformers, crammedBERT, UltraFastBERT
or of ufbert itself, read as it is; or the name of a bundled model, or
ORGANISATION/NAME[@REVISION] of a model of the Hugging Face hub.

Exit codes: 0 done; 1 failed or interrupted, finished results are written;
2 wrong usage.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the same orderly end as with Ctrl-C
    try:
        return _run(parse(argv))  # exits with 2 where the usage is wrong
    except UfbertError as error:
        complain(f"error: {error}")
    except BrokenPipeError:  # the reader, such as head, has had enough
        pass
    except OSError as error:
        complain(f"error: {error.filename or 'output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        complain("interrupted")
    if sys.stdout is not None:
        discard_unwritten(sys.stdout)
    return 1


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; print help or complaints and exit where argparse does."""
    argv = sys.argv[1:] if argv is None else argv
    every = [name for names in VERBS.values() for name in names]
    one = argv[0] if argv and argv[0] in every else None  # importing them all takes longer than to embed a text
    parser = argparse.ArgumentParser(
        prog="ufbert",
        usage="%(prog)s COMMAND [OPTIONS]",
        description=DESCRIPTION + ("" if one else _list_of_verbs()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ufbert {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help="one of the commands above", prog="ufbert"
    )
    verbs = {}
    for name in [one] if one else every:
        module = _module(name)
        verbs[name] = commands.add_parser(
            name, description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.add_arguments(verbs[name])
        verbs[name].set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    if hasattr(arguments, "input"):  # the verbs on texts
        check(verbs[arguments.command], arguments)
    return arguments


def check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse before any work what does not go together."""
    from .files import check_files, check_without, over_files  # slow to import
    from .options import check_texts

    if over_files(arguments):
        check_files(parser, arguments)
    else:
        check_without(parser, arguments)
        check_texts(parser, arguments)


def _module(verb: str) -> ModuleType:
    return import_module("." + verb.replace("-", "_"), __name__)


def _list_of_verbs() -> str:
    lines = []
    for title, names in VERBS.items():
        lines.append(f"\n{title}:")
        lines += [f"  {name:<10} {(_module(name).__doc__ or '').splitlines()[0]}" for name in names]
    return "\n".join(lines)


def _run(arguments: argparse.Namespace) -> int:
    warnings.showwarning = lambda message, *_: complain(f"warning: {message}")
    if getattr(arguments, "threads", None):
        os.environ["UFBERT_NUM_THREADS"] = str(arguments.threads)
    if sys.stdout is None and not getattr(arguments, "output", None):
        raise InputError("standard output: expected an open one, found it closed; open it, or use --output FILE")
    code: int = arguments.run(arguments)
    if sys.stdout is not None:
        sys.stdout.flush()
    return code
