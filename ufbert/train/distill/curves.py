"""The curves of a conversion as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ...checkpoint.writing import whole_file

__all__ = ["draw"]

PANELS = (("local", "layer by layer"), ("end_to_end", "end to end"))


def draw(log: list[dict[str, Any]], file: Path) -> None:
    """Draw loss, R² and cosine over tokens, one panel a stage, as PNG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, (stage, title) in zip(figure.subplots(1, 2), PANELS, strict=True):
        entries = [entry for entry in log if entry["stage"] == stage]
        tokens = np.array([entry["tokens"] for entry in entries]) / 1e6
        axes.set(title=title, xlabel="million tokens", ylabel="R² of scaled coordinates, cosine", ylim=(0, 1))
        axes.grid(alpha=0.3)
        if not entries:
            continue
        r2 = np.array([entry["r2"] for entry in entries])  # (entries, L) of the layers, or (entries,) of the last
        for layer, values in enumerate(np.atleast_2d(r2.T)):
            axes.plot(tokens, values, label=f"R², layer {layer}" if r2.ndim > 1 else "R², last layer")
        if "cosine" in entries[0]:
            axes.plot(tokens, [entry["cosine"] for entry in entries], label="cosine of embeddings")
        axes.legend(fontsize="small", loc="lower right")
    with whole_file(file) as part:
        figure.savefig(part, format="png", dpi=120)
