"""Show version, instruction set, threads and libraries."""

from __future__ import annotations

import argparse
import json

from ..info import info

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what is installed and what runs."""
    facts = info()
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else "none" if value is None else value
        print(f"{name.replace('_', ' '):<21} {shown}")
    return 0
