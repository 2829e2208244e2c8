"""What ``ufbert glue`` does: scores of classifiers, of linear probes, or of what it fine-tunes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.writing import whole_file
from ..errors import InputError

__all__ = ["glue"]


def glue(arguments: argparse.Namespace) -> int:
    """Score a model on GLUE's dev sets; with --out also write results and predictions for the test sets."""
    from ..glue import find_classifiers, find_task, tasks_in

    if arguments.finetune and arguments.out is None:
        raise InputError("--finetune: expected --out FOLDER for the classifiers, got none")
    names = [find_task(name).name for name in arguments.tasks or []]
    if arguments.finetune:
        return _finetune(arguments, names or tasks_in(arguments.data))
    classifiers = find_classifiers(arguments.model, names or None)
    if classifiers:
        results = {"model": str(arguments.model), **_evaluate(arguments, classifiers, arguments.out)}
    else:
        results = {"model": str(arguments.model), **_probe(arguments, names or tasks_in(arguments.data))}
    _write(arguments.out, results)
    return 0


def _evaluate(arguments: argparse.Namespace, classifiers: dict[str, Path], out: str | None) -> dict[str, Any]:
    """Score classifiers, and with `out` write what GLUE's server takes wherever there is a test file."""
    from ..glue import evaluate, load_task, predict, read_split, render_scores, summarise, write_predictions
    from ..glue.data import has_split
    from ..tasks import TextClassifier

    scores = []
    for name, folder in classifiers.items():
        task, data = load_task(arguments.data, name)
        classifier = TextClassifier(folder, arguments.dtype)
        scores += evaluate(classifier, task, data, arguments.batch_size, _progress(arguments))
        for split in task.test if out else ():
            if has_split(split, data):
                rows = read_split(task, split, data)
                predictions = predict(classifier, task, rows.texts, arguments.batch_size, _progress(arguments))
                write_predictions(Path(out or "", "submission"), task, split, rows, predictions)
    print(render_scores(scores))
    return {"method": "classifier", **summarise(scores)}


def _probe(arguments: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    from ..glue import load_task, probe, render_scores, summarise
    from ..tasks import SentenceEncoder

    encoder = SentenceEncoder(arguments.model, pooling=arguments.pooling, dtype=arguments.dtype)
    scores = []
    for name in names:
        scores += probe(encoder, *load_task(arguments.data, name), arguments.batch_size, _progress(arguments))
    print("linear probe on frozen sentence embeddings", render_scores(scores), sep="\n")
    return {"method": "probe", **summarise(scores)}


def _finetune(arguments: argparse.Namespace, names: list[str]) -> int:
    """Fine-tune with every seed and score each; the results are all seeds' and their median."""
    from ..torch import use_threads  # the extra's absence is said here, before anything else

    use_threads()
    from ..glue import load_task
    from ..glue.finetune import finetune
    from ..glue.recipe import Recipe

    recipe = Recipe(
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        max_seq_length=arguments.max_seq_length,
        top_layers=arguments.top_layers,
        dtype=arguments.save_dtype,
    )
    out, runs = Path(arguments.out), []
    for seed in range(arguments.seeds):
        folders = {}
        for name in names:
            task, data = load_task(arguments.data, name)
            place = out / f"seed-{seed}" / task.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if recipe.top_layers is not None:
                _put_beside(Path(arguments.model), place.parent)
            folders[name] = finetune(arguments.model, task, data, place, recipe, seed, _progress(arguments))
        print(f"seed {seed}")
        runs.append(_evaluate(arguments, folders, str(out / f"seed-{seed}")))
    medians = {name: float(np.median([run["values"][name] for run in runs])) for name in runs[0]["values"]}
    if len(runs) > 1:
        print("median of the seeds", *(f"{name:<10} {100 * value:5.1f}" for name, value in medians.items()), sep="\n")
    _write(arguments.out, {"model": str(arguments.model), "method": "finetune", "seeds": runs, "median": medians})
    return 0


def _put_beside(encoder: Path, folder: Path) -> None:
    """Link the encoder where classifiers that have only their last layers look for it."""
    link = folder / encoder.resolve().name
    if not link.exists():
        link.symlink_to(encoder.resolve(), target_is_directory=True)


def _write(out: str | None, results: dict[str, Any]) -> None:
    if out is None:
        return
    file = Path(out, "results.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as part:
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _progress(arguments: argparse.Namespace) -> bool:
    return not arguments.quiet and sys.stderr is not None and sys.stderr.isatty()
