"""Score models on GLUE and tasks like it: classifiers, or encoders.

--model says what is scored:
  a classifier folder             on the task that --tasks names
  a folder of classifier folders  each on the task that it is named after
  an encoder                      by a linear probe on its frozen embeddings,
                                  or with --finetune by classifiers that are
                                  trained first, one for each task and seed

--data is GLUE's download: a folder for each task with train.tsv and dev.tsv.
A folder of your own is a task too: texts in the first one or two columns,
the label in the last. Needs the extra glue (pip install 'ufbert[glue]'),
--finetune also train. A fine-tuning run that was interrupted goes on where
it was.

  ufbert glue --model FOLDER --data GLUE
  ufbert glue --model ENCODER --data GLUE --finetune --seeds 3 --out RESULTS
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.folder import ModelFolder
from ..checkpoint.writing import whole_file
from ..errors import InputError
from .options import add_device, add_precision, add_run, batch_size, positive

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.usage = "%(prog)s --model FOLDER --data FOLDER [OPTIONS]"
    parser.add_argument(
        "--model", required=True, metavar="FOLDER", help="classifier, folder of classifiers, or encoder"
    )
    parser.add_argument("--data", required=True, metavar="FOLDER", help="folder with a folder for each task")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="CoLA, SST-2, ... (default: all in --data)")
    parser.add_argument(
        "--out", metavar="FOLDER", help="write results, predictions of test sets and trained classifiers to FOLDER"
    )
    parser.add_argument(
        "--pooling",
        help="of an encoder whose folder does not say: cls, mean, lasttoken, ...",
    )
    parser.add_argument("--batch-size", type=batch_size, default=32, metavar="N", help="texts at once (default: 32)")
    add_precision(parser)
    add_run(parser, "no progress bars")
    _add_training(parser.add_argument_group("fine-tuning"))


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--finetune", action="store_true", help="train a classifier for each task; needs --out")
    add_device(group)
    group.add_argument("--seeds", type=positive, default=1, metavar="N", help="train each N times (default: 1)")
    group.add_argument("--epochs", type=positive, default=5, metavar="N", help="times through the data (default: 5)")
    group.add_argument("--learning-rate", type=float, default=1e-4, metavar="RATE", help="at its peak (default: 1e-4)")
    group.add_argument(
        "--max-seq-length", type=positive, default=128, metavar="N", help="tokens of a text or pair (default: 128)"
    )
    group.add_argument(
        "--top-layers", type=int, metavar="N", help="train and save only the last N layers and the head (default: all)"
    )
    group.add_argument(
        "--save-dtype",
        choices=("float32", "float16"),
        default="float32",
        help="of the saved weights (default: float32)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Score a model on GLUE's dev sets; with --out also write results and predictions for the test sets."""
    from ..glue import find_classifiers, find_task

    if arguments.finetune and arguments.out is None:
        raise InputError("--finetune: expected --out FOLDER for the classifiers; add it")
    names = [find_task(name).name for name in arguments.tasks or []]
    if arguments.finetune:
        return _finetune(arguments, names or _all_tasks(arguments.data))
    classifiers = find_classifiers(arguments.model, names or None)
    if classifiers:
        results = {"model": str(arguments.model), **_evaluate(arguments, classifiers, arguments.out)}
    else:
        results = {"model": str(arguments.model), **_probe(arguments, names or _all_tasks(arguments.data))}
    _write(arguments.out, results)
    return 0


def _all_tasks(data: str) -> list[str]:
    from ..glue import tasks_in

    names = tasks_in(data)
    if not names:
        raise InputError(
            f"--data: expected folders of tasks (CoLA, SST-2, ...) in {data}, found none; name their parent"
        )
    return names


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
    from ..train import use_threads  # the extra's absence is said here, before anything else

    use_threads()
    from ..glue import load_task
    from ..train.finetune import FinetuneRecipe, finetune

    recipe = FinetuneRecipe(
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        max_seq_length=arguments.max_seq_length,
        top_layers=arguments.top_layers,
        dtype=arguments.save_dtype,
    )
    encoder = ModelFolder(arguments.model).complete().path  # a name's folder is where it was fetched to
    out, runs, progress = Path(arguments.out), [], _progress(arguments)
    for seed in range(arguments.seeds):
        folders = {}
        for name in names:
            task, data = load_task(arguments.data, name)
            place = out / f"seed-{seed}" / task.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if recipe.top_layers is not None:
                _put_beside(encoder, place.parent)
            folders[name] = finetune(encoder, task, data, place, recipe, seed, progress, arguments.device)
        print(f"seed {seed}")
        runs.append(_evaluate(arguments, folders, str(out / f"seed-{seed}")))
    medians = {name: float(np.median([run["values"][name] for run in runs])) for name in runs[0]["values"]}
    if len(runs) > 1:
        print("median of the seeds", *(f"{name:<10} {100 * value:5.1f}" for name, value in medians.items()), sep="\n")
    _write(arguments.out, {"model": str(arguments.model), "method": "finetune", "seeds": runs, "median": medians})
    return 0


def _put_beside(encoder: Path, folder: Path) -> None:
    """Link or copy the encoder where classifiers that have only their last layers look for it."""
    link = folder / encoder.resolve().name
    if not link.exists():
        try:
            link.symlink_to(encoder.resolve(), target_is_directory=True)
        except OSError:  # Windows lets only some users make links
            shutil.copytree(encoder.resolve(), link)


def _write(out: str | None, results: dict[str, Any]) -> None:
    if out is None:
        return
    file = Path(out, "results.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as part:
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _progress(arguments: argparse.Namespace) -> bool:
    return not arguments.quiet and sys.stderr is not None and sys.stderr.isatty()
