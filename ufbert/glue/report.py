"""Scores as a table and as JSON, with the averages of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .evaluate import Score
from .tasks import AVERAGED

__all__ = ["averages", "render_scores", "summarise", "task_values"]


def task_values(scores: Sequence[Score]) -> dict[str, float]:
    """One number a task: the mean over its splits (MNLI has two) of the mean over the metrics."""
    names = list(dict.fromkeys(score.task for score in scores))
    return {name: float(np.mean([score.value for score in scores if score.task == name])) for name in names}


def averages(values: dict[str, float]) -> dict[str, float]:
    """Means over tasks, without WNLI, with and without CoLA, as in arXiv 2311.10770.

    Tasks outside GLUE count too, so name the tasks beside an average.
    """
    counted = {name: value for name, value in values.items() if name != "WNLI"}
    without = [value for name, value in counted.items() if name != "CoLA"]
    found = {"average": float(np.mean(list(counted.values())))} if counted else {}
    if "CoLA" in counted and without:
        found["average without CoLA"] = float(np.mean(without))
    return found


def summarise(scores: Sequence[Score]) -> dict[str, Any]:
    """Describe scores in plain JSON types."""
    values = task_values(scores)
    return {
        "scores": [
            {
                "task": score.task,
                "split": score.split,
                "metrics": score.metrics,
                "rows": score.rows,
                "skipped": score.skipped,
                "official_split": score.is_official,
            }
            for score in scores
        ],
        "values": values,
        "averages": averages(values),
        "is_glue_score": set(values) >= set(AVERAGED) and all(score.is_official for score in scores),
    }


def render_scores(scores: Sequence[Score]) -> str:
    """Lines for people: each dev split, what is not GLUE's own, and the averages."""
    lines = []
    for score in scores:
        metrics = "  ".join(f"{name} {100 * value:.1f}" for name, value in score.metrics.items())
        lines.append(f"{score.split:<10} {100 * score.value:5.1f}   {metrics}   ({_rows(score)})")
    values = task_values(scores)
    lines += [f"{name:<22} {100 * value:.1f}" for name, value in averages(values).items() if len(values) > 1]
    strange = [score.split for score in scores if not score.is_official]
    if strange:
        lines.append(f"Not GLUE's own dev sets, so no GLUE scores: {', '.join(strange)}.")
    return "\n".join(lines)


def _rows(score: Score) -> str:
    text = f"{score.rows:,} rows"
    if score.official_rows and not score.is_official:
        text += f", GLUE's dev set has {score.official_rows:,}"
    return text + (f", {score.skipped} malformed ones skipped" if score.skipped else "")
