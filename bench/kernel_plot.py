"""The figure of `kernel.py`."""

import numpy as np


def plot(results, file):
    """Ratios of the headline and of one token; the cost of a token against the size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2))
    rows = [row for row in results["headline"] + results["single_token"] if "2 thread" in row["title"]]
    labels = [row["title"].split(", ")[2] for row in rows]
    for offset, name in ((-0.2, "ufbert float32"), (0.2, "ufbert bfloat16")):
        bars = left.bar(np.arange(len(rows)) + offset, [row["ours"][name]["ratio"] for row in rows], 0.4, label=name)
        left.bar_label(bars, fmt="%.0f")
    left.axhline(78, color="grey", linestyle="--", label="the paper, batch 16,384")
    left.set_xticks(range(len(rows)), labels)
    left.set_ylabel("times the fastest dense float32 layer")
    left.set_title("768 to 4095 to 768, one tree of depth 11, 2 threads")
    left.legend()
    for dtype in ("float32", "bfloat16"):
        right.plot(
            [r["neurons"] for r in results["depth"]], [r["ns"][dtype] for r in results["depth"]], "o-", label=dtype
        )
    right.set_xscale("log", base=2)
    right.set_ylim(bottom=0)
    right.set_xlabel("neurons in the tree")
    right.set_ylabel("nanoseconds a token, batch 4096")
    right.set_title("cost grows with the logarithm of the size")
    right.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
