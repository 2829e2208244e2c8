"""Copy a model folder with its weights in another precision.

The new folder has the same settings and one file of weights. float16 and
bfloat16 halve a float32 file, int8 makes it a quarter (only ufbert reads
that). Any model folder that ufbert can run can be copied, and so can one
whose weights are a pytorch_model.bin: tensors are read from it, no code.

  ufbert convert FOLDER NEW_FOLDER --dtype float16
"""

from __future__ import annotations

import argparse

from ..convert import DTYPES, convert

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("source", metavar="FOLDER", help="model folder to copy")
    parser.add_argument("target", metavar="NEW_FOLDER", help="folder to make: free, or empty")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="of the stored weights (default: float16)")


def run(arguments: argparse.Namespace) -> int:
    """Copy the folder and print its name."""
    print(convert(arguments.source, arguments.target, arguments.dtype))
    return 0
