"""The command ``ufbert``: arguments in, text, JSON lines or arrays out.

Exit codes: 0 done, 1 failed or interrupted (what was finished is written), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import warnings
from collections.abc import Sequence

from ..errors import InputError, UfbertError
from .arguments import parse
from .commands import COMMANDS
from .streams import complain, discard_unwritten

__all__ = ["main"]


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


def _run(arguments: argparse.Namespace) -> int:
    warnings.showwarning = lambda message, *_: complain(f"warning: {message}")
    if getattr(arguments, "threads", None):
        os.environ["UFBERT_NUM_THREADS"] = str(arguments.threads)
    if sys.stdout is None and not getattr(arguments, "output", None):
        raise InputError("standard output: expected an open one, found it closed; open it, or use --output FILE")
    code = COMMANDS[arguments.command](arguments)
    if sys.stdout is not None:
        sys.stdout.flush()
    return code
