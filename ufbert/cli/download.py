"""Fetch a model of the Hugging Face hub, for later or for another machine.

Fetches settings, tokenizer and safetensors, and prints the folder. Commands
that take a model do so by themselves; this one prepares a machine without a
network, or makes a folder for it. HF_TOKEN or "hf auth login" opens private
models; HF_HOME or HF_HUB_CACHE says where the cache is.

  ufbert download sentence-transformers/all-mpnet-base-v2
  ufbert download BAAI/bge-small-en-v1.5@main --out bge-small
"""

from __future__ import annotations

import argparse
import os

from ..checkpoint import download

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("name", metavar="ORGANISATION/NAME[@REVISION]", help="the model, and perhaps its revision")
    parser.add_argument("--out", metavar="FOLDER", help="copy it to this new folder, which then stands alone")
    parser.add_argument("--subfolder", default="", metavar="PATH", help="the folder of the repository that it is in")
    parser.add_argument("--cache", metavar="FOLDER", help="the cache (default: the hub's own)")
    parser.add_argument(
        "--pickled", action="store_true", help="also pytorch_model.bin, for ufbert convert, if there is nothing else"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(arguments: argparse.Namespace) -> int:
    """Fetch the model and print its folder."""
    if arguments.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when the library is imported
    options = {"subfolder": arguments.subfolder, "cache_folder": arguments.cache, "pickled": arguments.pickled}
    print(download(arguments.name, arguments.out, **options))
    return 0
