"""The command ``ufbert``: arguments in, text, JSON lines or arrays out.

Exit codes: 0 done, 1 failed or interrupted (what was finished is written), 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from ..errors import UfbertError
from .arguments import parse
from .commands import COMMANDS

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = parse(argv)  # exits with 2 where the usage is wrong
    warnings.showwarning = lambda message, *_: print(f"ufbert: warning: {message}", file=sys.stderr)
    if getattr(arguments, "threads", None):
        os.environ["UFBERT_NUM_THREADS"] = str(arguments.threads)
    try:
        return COMMANDS[arguments.command](arguments)
    except UfbertError as error:
        print(f"ufbert: error: {error}", file=sys.stderr)
    except BrokenPipeError:  # the reader, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"ufbert: error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("ufbert: interrupted", file=sys.stderr)
    return 1
