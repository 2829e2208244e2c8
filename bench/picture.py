"""The README's picture: how near embeddings come to the original's, against seconds for 1,000 mixed texts.

    python bench/picture.py [ISA]

Reads encoder-minilm.json and encoder-bundled.json of bench/results/ISA (default: avx2), which `bench/all.py` writes,
and the cosines of bench/results/distill.json; writes quality-speed.png beside the first two. The cosines of trees are
those of float32; narrower weights change their means by less than 0.001.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).with_name("results")
WORK = "1,000 mixed texts"
TREES = {"30x7": "30x7 bundled", "1x11": "1x11 bundled"}  # in the models' names; in distill.json
COLOURS = {"float32": "tab:blue", "bfloat16": "tab:orange", "int8": "tab:green"}
CPUS = {"avx2": "Zen 3, AVX2", "avx512": "Zen 4, AVX-512", "avx512bf16": "Zen 5, AVX-512"}


def main(isa: str) -> None:
    engines = json.loads((RESULTS / isa / "encoder-minilm.json").read_text())
    bundled = json.loads((RESULTS / isa / "encoder-bundled.json").read_text())["milliseconds"][WORK]
    cosines = json.loads((RESULTS / "distill.json").read_text())["rows"]
    figure, axis = pyplot.subplots(figsize=(9, 4.6), layout="constrained")
    for name, row in engines["milliseconds"][WORK].items():
        if lowest := engines["lowest cosine"].get(name):
            ours = name.startswith("ufbert")
            dtype = name.split(",")[0].split()[-1]
            axis.scatter(row["median"] / 1e3, lowest, 60, COLOURS[dtype], marker="o" if ours else "x", zorder=3)
            if not ours and dtype != "bfloat16":  # which would be written over the same engine's float32
                engine = name.removesuffix(", two at once").removesuffix(f" {dtype}")
                place = (row["median"] / 1e3, lowest)
                axis.annotate(
                    engine, place, (-2, -8), textcoords="offset points", rotation=60, fontsize=7, ha="right", va="top"
                )
    for short, row_name in TREES.items():
        quality = cosines[row_name]
        rows = {name.split()[-1]: row for name, row in bundled.items() if short in name}
        for dtype, row in rows.items():
            seconds = row["median"] / 1e3
            axis.plot([seconds] * 2, [quality["lowest_cosine"], quality["cosine"]], COLOURS[dtype], lw=1, alpha=0.5)
            axis.scatter(seconds, quality["cosine"], 70, COLOURS[dtype], marker="^", zorder=3)
        left = min(row["median"] for row in rows.values()) / 1e3
        axis.annotate(f"trees {short}", (left, quality["cosine"]), (-4, 9), textcoords="offset points", ha="center")
    for dtype, colour in COLOURS.items():
        axis.scatter([], [], 60, colour, marker="s", label=dtype)
    axis.scatter([], [], 60, "black", marker="o", label="ufbert, original model: lowest cosine")
    axis.scatter([], [], 60, "black", marker="x", label="other engines, original model: lowest cosine")
    axis.scatter([], [], 70, "black", marker="^", label="ufbert, trees: mean cosine, line to the lowest")
    axis.set_xscale("log")
    axis.set_xticks(ticks := [1, 1.5, 2, 3, 4, 5, 6, 8], [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(1.2, 8.5)
    axis.set_ylim(0.55, 1.02)
    axis.set_xlabel(f"seconds for {WORK}, two threads of an {engines['machine']['cpu']} ({CPUS.get(isa, isa)})")
    axis.set_ylabel("cosine to all-MiniLM-L6-v2 in float32")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize=8)
    figure.savefig(RESULTS / isa / "quality-speed.png", dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:] or ["avx2"])
