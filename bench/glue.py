"""Encoders fine-tuned the same way on the same tasks: scores, and the ratio to the first one, over seeds.

    python bench/glue.py --data GLUE_DIR --work FOLDER dense=FOLDER fff=FOLDER fff-1x11=FOLDER no-ff=FOLDER small=FOLDER

Every (seed, task, model) is a job of its own: `ufbert.train.finetune` with the default recipe, `ufbert.glue.evaluate`
on the classifier folder that it wrote, which is then removed. Scores stay in --work, so that the same command goes on
where it was stopped, and a model added later costs only its own jobs. Two jobs on one thread each finish sooner on two
cores than two threads in one job. Writes glue.json, glue.md and glue.png to --report. Needs the extras train and plot.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from ufbert.glue import averages, evaluate, load_task, tasks_in
from ufbert.train.finetune import FinetuneRecipe

HERE = Path(__file__).parent
# What dev sets of these sizes are: none of them is GLUE's, and a score on one is not a GLUE score.
STAND_INS = {
    ("CoLA", 527): "CoLA, its in-domain dev part (GLUE: 1,043 rows)",
    ("SST-2", 1000): "SST-2 stand-in: Rotten Tomatoes sentence polarity",
    ("MRPC", 500): "MRPC, another split (GLUE: 408 rows)",
    ("STS-B", 1200): "STS-B stand-in: SemEval STS 2012-14",
    ("RTE", 400): "RTE 1-3 (GLUE's also has RTE 5)",
    ("SICK", 500): "MNLI stand-in: SICK, three-way entailment",
    ("TREC", 500): "TREC question classes, not in GLUE",
}
Results = dict[str, dict[int, dict[str, dict[str, Any]]]]  # model, seed, task


def main() -> None:
    arguments = parse()
    models = dict(pair.split("=", 1) for pair in arguments.models)
    names = arguments.tasks or tasks_in(arguments.data)
    recipe = FinetuneRecipe(epochs=arguments.epochs)
    jobs = [
        (name, str(Path(folder).resolve()), seed, task, arguments.data, arguments.work, recipe, arguments.device)
        for seed in range(arguments.seeds)
        for task in names
        for name, folder in models.items()
    ]
    waiting = [job for job in jobs if not place_of(job).is_file()]
    print(f"{len(jobs)} jobs, {len(jobs) - len(waiting)} done before", flush=True)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "UFBERT_NUM_THREADS"):
        os.environ[variable] = "1"
    with ProcessPoolExecutor(arguments.workers, get_context("spawn"), end_with, (os.getpid(),)) as pool:
        for future in as_completed([pool.submit(run, job) for job in waiting]):
            print(future.result(), flush=True)
    results: Results = {name: {seed: {} for seed in range(arguments.seeds)} for name in models}
    for job in jobs:
        results[job[0]][job[2]][job[3]] = json.loads(place_of(job).read_text())
    shown = [f"{name}={Path(folder).resolve().name}" for name, folder in models.items()]
    options = f"--data GLUE_DIR --work FOLDER --seeds {arguments.seeds} --epochs {recipe.epochs}"
    write_report(arguments.report, results, names, recipe, " ".join(["python bench/glue.py", options, *shown]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER", help="the first is what ratios are to")
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", required=True, help="folder for scores and for what is being trained")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=FinetuneRecipe().epochs)
    parser.add_argument("--workers", type=int, default=2, help="jobs at once, on a GPU too: one leaves it idle")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where jobs train")
    parser.add_argument("--report", type=Path, default=HERE / "results")
    return parser.parse_args()


def end_with(parent: int) -> None:
    """Let a worker end when this process is killed, in place of going on beside the next command's workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def place_of(job: tuple[Any, ...]) -> Path:
    name, _, seed, task, _, work, recipe, _ = job
    return Path(work, f"{name}-{recipe.epochs}-epochs", f"seed-{seed}", f"{task}.json")


def run(job: tuple[Any, ...]) -> str:
    """One fine-tuning and its score."""
    import ufbert
    from ufbert.train.finetune import finetune

    name, encoder, seed, task_name, data, _, recipe, device = job
    place = place_of(job)
    place.parent.mkdir(parents=True, exist_ok=True)
    task, folder = load_task(data, task_name)
    start = time.monotonic()
    classifier = finetune(encoder, task, folder, place.with_suffix(""), recipe, seed, device=device)
    scores = evaluate(ufbert.TextClassifier(classifier), task, folder)
    log = json.loads((classifier / "training.json").read_text())
    found = {
        "value": float(np.mean([score.value for score in scores])),
        "metrics": {score.split: score.metrics for score in scores},
        "rows": scores[0].rows,
        "official": all(score.is_official for score in scores),
        "last_loss": log["log"][-1]["loss"],
        "training_seconds": log["seconds"],
        "encoder_sha256": log["made_by"]["encoder_sha256"],
    }
    part = place.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1))
    part.replace(place)
    shutil.rmtree(classifier)
    return f"{name} seed {seed} {task_name}: {100 * found['value']:.1f} ({time.monotonic() - start:.0f} s)"


def write_report(folder: Path, results: Results, tasks: list[str], recipe: FinetuneRecipe, command: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    summary = summarise(results, tasks)
    facts = {"command": command, "recipe": asdict(recipe), "summary": summary, "results": results}
    (folder / "glue.json").write_text(json.dumps(facts, indent=1) + "\n")
    (folder / "glue.md").write_text(render(results, summary, tasks, recipe, command), encoding="utf-8")
    draw(folder / "glue.png", results, tasks)


def summarise(results: Results, tasks: list[str]) -> dict[str, dict[str, Any]]:
    """Median, least and most over seeds: of each task, of both averages, and of their ratios to the first model."""
    rows: dict[str, dict[str, Any]] = {}
    first = next(iter(results))
    for name, seeds in results.items():
        values = {seed: {task: found[task]["value"] for task in tasks} for seed, found in seeds.items()}
        columns: dict[str, list[float]] = {task: [values[seed][task] for seed in seeds] for task in tasks}
        for average in averages(values[0]):
            columns[average] = [averages(values[seed])[average] for seed in seeds]
            columns[f"{average}, ratio to {first}"] = [
                averages(values[seed])[average]
                / averages({task: results[first][seed][task]["value"] for task in tasks})[average]
                for seed in seeds
            ]
        rows[name] = {
            column: {"median": float(np.median(found)), "least": min(found), "most": max(found)}
            for column, found in columns.items()
        }
        rows[name]["hours"] = sum(found[task]["training_seconds"] for found in seeds.values() for task in tasks) / 3600
    return rows


def render(
    results: Results, summary: dict[str, dict[str, Any]], tasks: list[str], recipe: FinetuneRecipe, command: str
) -> str:
    any_seed = next(iter(next(iter(results.values())).values()))
    count = len(next(iter(results.values())))
    columns = [column for column in next(iter(summary.values())) if column != "hours"]
    lines = [
        "# Fine-tuned the same way",
        "",
        f"Made by `{command}`.",
        "",
        f"Median of {count} seed(s), in brackets the least and the most; scores x 100, a task's is the mean of its "
        f"metrics. {recipe.epochs} epochs, AdamW at {recipe.learning_rate:g} with cosine decay, batches of "
        f"{recipe.batch_size}, {recipe.max_seq_length} tokens, the classifier on the first token, the last epoch's "
        "weights; scored by `ufbert` on the classifier folder. Ratios are taken seed by seed.",
        "",
        "| | " + " | ".join(columns) + " | hours of training |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for name, row in summary.items():
        cells = [_cell(row[column]) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {row['hours']:.1f} |")
    lines += ["", "![scores](glue.png)", "", "What the dev sets are:", ""]
    for task in tasks:
        rows, official = any_seed[task]["rows"], any_seed[task]["official"]
        what = "GLUE's own dev set" if official else STAND_INS.get((task, rows), f"{task}, not GLUE's own dev set")
        lines.append(f"- {task}: {what}, {rows:,} rows, {', '.join(next(iter(any_seed[task]['metrics'].values())))}")
    if not all(any_seed[task]["official"] for task in tasks):
        lines += ["", "So the averages are no GLUE scores; they compare these models with each other and nothing else."]
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, float]) -> str:
    median, least, most = (100 * found[key] for key in ("median", "least", "most"))
    return f"{median:.1f} ({least:.1f}-{most:.1f})"


def draw(file: Path, results: Results, tasks: list[str]) -> None:
    """Share of the first model's score that each model keeps on each task, seed by seed: median and range."""
    from matplotlib.figure import Figure

    first, *others = results
    scores = {name: np.array([_with_average(run, tasks) for run in seeds.values()]) for name, seeds in results.items()}
    figure = Figure(figsize=(1.4 * len(tasks) + 3, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(others):
        kept = 100 * scores[name] / scores[first]  # (seeds, tasks + 1)
        medians = np.median(kept, axis=0)
        spread = [medians - kept.min(axis=0), kept.max(axis=0) - medians]
        at = np.arange(len(tasks) + 1) + 0.14 * (number - (len(others) - 1) / 2)
        axes.errorbar(at, medians, spread, fmt="o", capsize=3, label=name)
    axes.axhline(100, color="grey", linewidth=1)
    axes.set_xticks(range(len(tasks) + 1), [*tasks, "average"])
    axes.set_ylabel(f"% of {first}'s score, median and range of seeds")
    axes.grid(axis="y", alpha=0.3)
    if others:
        axes.legend()
    figure.savefig(file, dpi=120)


def _with_average(run: dict[str, dict[str, Any]], tasks: list[str]) -> list[float]:
    values = {task: run[task]["value"] for task in tasks}
    return [*values.values(), averages(values)["average"]]


if __name__ == "__main__":
    main()
