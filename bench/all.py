"""The whole table of the engines, on this kind of machine: some 13 minutes on two cores with nothing else to do.

    python bench/all.py [--threads N]

Runs `bench/encoder.py` for MiniLM, for BERT-base's size, for the bundled encoders, for UltraFastBERT-1x11 and on a busy
machine, each in a process of its own; writes bench/results/ISA/*. `bench/kernel.py`, for the layer alone, takes another
ten minutes and stands by itself. Needs what `bench/encoder.py` needs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ufbert_weights

import ufbert

ENCODER = Path(__file__).with_name("encoder.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="2", help="of every engine (default: 2)")
    threads = parser.parse_args().threads
    with tempfile.TemporaryDirectory() as scratch:
        folder = str(ufbert.convert(ufbert_weights.path("all-MiniLM-L6-v2"), Path(scratch, "minilm"), "float32"))
        for arguments in (
            ["minilm", folder, "--rounds", "2"],
            ["minilm", folder, "--rounds", "2", "--size", "12x768"],
            ["ultrafast", "--rounds", "2"],
            ["bundled", "--rounds", "1"],
            ["busy", "--rounds", "5"],
        ):
            print(f"\n== encoder.py {' '.join(arguments)}", flush=True)
            start = time.perf_counter()
            done = subprocess.run([sys.executable, ENCODER, *arguments, "--threads", threads])
            print(f"== {time.perf_counter() - start:.0f} s, exit code {done.returncode}", flush=True)


if __name__ == "__main__":
    main()
