"""The same bits: of every bundled model and precision, on every instruction set, across orders, batches and threads.

    python tests/campaign/bits.py            # compares with the digests in bits.json
    python tests/campaign/bits.py --write    # records those of this machine's instruction sets

Digests hold for the compiler that the gate uses. An instruction set without recorded digests is named, and only
compared with itself.
"""

import argparse
import json
import os
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import ufbert_weights

import ufbert
from ufbert import dense, isa

RECORDED = Path(__file__).with_name("bits.json")
TEXTS = (Path(__file__).parents[1] / "golden" / "all-minilm-l6-v2" / "texts.txt").read_text("utf-8").split("\n")[:-1]
WAYS = [(1, 32, 1), (-1, 7, 2), (1, 1, 2), (-1, 64, 3)]  # order, texts in a batch, threads


def digest(name, dtype):
    """Of the results of a model; raises AssertionError where they depend on order, batch or threads."""
    if name == "sentiment":
        model = ufbert.TextClassifier(name, dtype=dtype)

        def run(texts, size):
            rows = model(texts, top_k=None, batch_size=size)
            return np.array(
                [[found["score"] for found in sorted(row, key=lambda found: found["label"])] for row in rows]
            )
    else:
        model = ufbert.SentenceEncoder(name, dtype=dtype)

        def run(texts, size):
            return model.encode(texts, batch_size=size)

    found = set()
    for order, size, threads in WAYS:
        os.environ["UFBERT_NUM_THREADS"] = str(threads)
        found.add(sha256(np.ascontiguousarray(run(TEXTS[::order], size)[::order])).hexdigest())
    assert len(found) == 1, f"{isa.active_isa()}: {name} in {dtype}: other bits in another order, batch or thread count"
    return found.pop()


def main():
    """Compare or write; exit with 1 where bits differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    faults = 0
    for name in isa.supported_isas():
        isa.use_isa(name)
        found = {model: {dtype: digest(model, dtype) for dtype in dense.DTYPES} for model in ufbert_weights.names()}
        if arguments.write:
            recorded[name] = found
        elif name not in recorded:
            print(f"{name}: the same bits in every order, batch and thread count; no digests are recorded")
        else:
            differ = [f"{model} {dtype}" for model in found for dtype in dense.DTYPES
                      if found[model][dtype] != recorded[name].get(model, {}).get(dtype)]  # fmt: skip
            print(f"{name}: {len(found)} models, {len(dense.DTYPES)} precisions: {', '.join(differ) or 'all'} "
                  f"{'differ' if differ else 'as recorded'}")  # fmt: skip
            faults += len(differ)
    if arguments.write:
        RECORDED.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
