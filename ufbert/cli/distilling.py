"""What ``ufbert distill`` and ``ufbert compare`` do."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

from ..errors import InputError

__all__ = ["compare_models", "distill_model"]


def distill_model(arguments: argparse.Namespace) -> int:
    """A dense BERT with trees in place of its feed-forward layers."""
    # PyTorch's threads and the kernels' take turns: those that wait must not spin in the others' time. Read at import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from ..torch import use_threads  # the extra's absence is said here, before anything else

    use_threads()
    from ..distill import Recipe, distill

    fields = Recipe.__dataclass_fields__
    recipe = Recipe(**{name: value for name, value in vars(arguments).items() if name in fields and value is not None})
    places = arguments.start, arguments.keep_outputs
    print(distill(arguments.teacher, arguments.corpus, arguments.out, recipe, arguments.teacher_dtype, *places))
    return 0


def compare_models(arguments: argparse.Namespace) -> int:
    """How near models come to their teacher, as a table."""
    from ..evaluate import ScoredPairs, compare
    from ..glue import load_task, read_split
    from ..routes import Corpus

    scored = {}
    for name in arguments.tasks if arguments.data else ():
        task, folder = load_task(arguments.data, name)
        if not task.regression or not task.text_pair:
            raise InputError(f"--tasks: expected tasks of scored pairs, such as STS-B or SICK-R, got {name}")
        rows = read_split(task, task.dev[0], folder)
        scored[task.name] = ScoredPairs(rows.texts, [float(label) for label in rows.labels])
    texts = list(Corpus(arguments.texts, arguments.max_texts))
    results = compare(arguments.teacher, arguments.models, texts, scored, arguments.dtype, not arguments.quiet)
    if arguments.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
        return 0
    heads = ["model", "cosine", "lowest", "10 neighbours", "MRR@10", *(f"{name} Spearman" for name in scored)]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for result in results:
        figures = [f"{result.cosine:.4f}", f"{result.lowest_cosine:.3f}", f"{100 * result.neighbours:.1f} %"]
        figures += [f"{result.reciprocal_rank:.3f}", *(f"{value:.4f}" for value in result.spearman.values())]
        print(f"| {result.model} | " + " | ".join(figures) + " |")
    return 0
