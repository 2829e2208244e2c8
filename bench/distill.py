"""How near converted models and their controls come to the dense one; what the training took.

    python bench/distill.py TEACHER --texts HELDOUT --data GLUE_DIR --control none=FOLDER NAME=FOLDER ...

The folders are what `ufbert distill` wrote, with their logs beside them in FOLDER.training. The control is the model
without feed-forward layers: of its error (1 - mean cosine) the others remove a share. With --earlier, a report stands
for models that are no longer at hand; the control is then the NAME of one of its rows. Writes distill.json, distill.md
and distill.png to --report. Needs the extras glue and plot.
"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ufbert.compare import Nearness, ScoredPairs, compare
from ufbert.glue import load_task, read_split
from ufbert.routes import Corpus

RESULTS = Path(__file__).parent / "results"
TASKS = ("STS-B", "SICK-R")
TEACHER = "dense (the teacher)"
POINTS = 200  # of a training's curve


def main() -> None:
    arguments = parse()
    earlier = json.loads(arguments.earlier.read_text()) if arguments.earlier else {"rows": {}, "curves": {}}
    control, *given = arguments.control.split("=", 1)
    if not given and control not in earlier["rows"]:
        raise SystemExit(f"--control: expected NAME=FOLDER, or a row of --earlier ({', '.join(earlier['rows'])})")
    folders = dict(pair.split("=", 1) for pair in [*([arguments.control] if given else []), *arguments.models])
    scored = {name: read_pairs(arguments.data, name) for name in TASKS}
    texts = list(Corpus(arguments.texts))
    teacher, *found = compare(arguments.teacher, list(folders.values()), texts, scored)
    logs = {name: log_of(Path(folder), earlier) for name, folder in folders.items()}
    rows = {TEACHER: row_of(teacher, teacher)} | {k: row for k, row in earlier["rows"].items() if k != TEACHER}
    for name, nearness in zip(folders, found, strict=True):
        facts = {key: logs[name][key] for key in ("tokens", "seconds", "recipe")}
        rows[name] = row_of(nearness, teacher) | facts | {"folder": Path(folders[name]).name}
    for name, row in rows.items():
        if name != TEACHER:
            row["error_removed"] = 1 - (1 - row["cosine"]) / (1 - rows[control]["cosine"])
    curves = earlier["curves"] | {name: log["curve"] for name, log in logs.items()}
    curves = {name: curve for name, curve in curves.items() if not any(begins(curve, c) for c in curves.values())}
    shown = [f"{name}={Path(folder).name}" for name, folder in folders.items()]
    shown = ["--control", *shown] if given else ["--earlier", "EARLIER", "--control", control, *shown]
    command = f"python bench/distill.py TEACHER --texts HELDOUT --data GLUE_DIR {shlex.join(shown)}"
    commands = [*earlier.get("commands", []), command]
    arguments.report.mkdir(parents=True, exist_ok=True)
    facts = {"commands": commands, "texts": len(texts), "rows": rows, "curves": curves}
    (arguments.report / "distill.json").write_text(json.dumps(facts, indent=1) + "\n")
    table = render(rows, control, len(texts), {name: len(pairs.pairs) for name, pairs in scored.items()}, commands)
    (arguments.report / "distill.md").write_text(table, encoding="utf-8")
    print(table)
    draw(arguments.report / "distill.png", curves)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("models", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--control", required=True, metavar="NAME[=FOLDER]", help="without feed-forward layers")
    parser.add_argument("--earlier", type=Path, metavar="JSON", help="a report for models that are not at hand")
    parser.add_argument("--texts", required=True, help="one a line, that nothing was trained on")
    parser.add_argument("--data", required=True, help="GLUE's layout, with STS-B and SICK")
    parser.add_argument("--report", type=Path, default=RESULTS)
    return parser.parse_intermixed_args()  # models may follow options


def read_pairs(data: str, name: str) -> ScoredPairs:
    task, folder = load_task(data, name)
    rows = read_split(task, task.dev[0], folder)
    return ScoredPairs(rows.texts, [float(label) for label in rows.labels])


def log_of(folder: Path, earlier: dict[str, Any]) -> dict[str, Any]:
    """Recipe, tokens, seconds and curve of a training, those of the model which it went on from included."""
    log = json.loads(Path(f"{folder}.training", "log.json").read_text())
    start = log["source"].get("start")
    if not start:
        before = {"tokens": 0, "seconds": 0, "curve": []}
    elif Path(f"{folder.parent / start}.training").exists():
        before = log_of(folder.parent / start, earlier)
    else:
        known = [name for name, row in earlier["rows"].items() if row.get("folder") == start]
        if not known:
            raise SystemExit(f"{folder}: expected the log of {start}, which it went on from, or its row in --earlier")
        name = known[-1]  # folders are named anew, rows are in the order of their making
        before = earlier["rows"][name] | {"curve": earlier["curves"].get(name, [])}
    steps = [entry for entry in log["log"] if entry["stage"] == "end_to_end"]
    curve = [[entry["tokens"] + before["tokens"], entry["cosine"]] for entry in steps[:: len(steps) // POINTS + 1]]
    return {
        "recipe": log["recipe"],
        "tokens": log.get("tokens", log["recipe"]["tokens"]) + before["tokens"],  # fewer where time ran out
        "seconds": log["seconds"] + before["seconds"],
        "curve": before["curve"] + curve,
    }


def begins(curve: list[list[float]], other: list[list[float]]) -> bool:
    """Whether the other is longer and begins with the curve: that of a model which went on from there."""
    return len(other) > len(curve) and other[: len(curve)] == curve


def row_of(model: Nearness, teacher: Nearness) -> dict[str, Any]:
    row = {key: value for key, value in asdict(model).items() if key != "model"}
    row["spearman_ratio"] = {name: value / teacher.spearman[name] for name, value in model.spearman.items()}
    return row


def render(rows: dict[str, Any], control: str, texts: int, pairs: dict[str, int], commands: list[str]) -> str:
    heads = ["", "mean cosine", f"error of '{control}' removed", "10 neighbours kept", "MRR@10 of halves"]
    heads += [f"{name} Spearman (of the teacher's)" for name in pairs] + ["million tokens, end to end", "minutes"]
    lines = [
        "# Converted models and their controls",
        "",
        "Made by " + ", then with that report as EARLIER by ".join(f"`{command}`" for command in commands) + ".",
        "",
        f"Against the dense model on {texts:,} sentences of the corpus's held-out part: mean cosine of embeddings, how "
        "much of the control's error (1 - cosine) is gone, the share of the ten nearest sentences that stay. MRR@10: "
        "the first half of each longer sentence seeks its second half among all second halves. Spearman to people's "
        f"scores on {' and '.join(f'{count:,} pairs of {name}' for name, count in pairs.items())}, as laid out in the "
        "data given: STS-B's rows may be a stand-in.",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
    ]
    for name, row in rows.items():
        cells = [name, f"{row['cosine']:.4f}"]
        cells.append(f"{100 * row['error_removed']:.0f} %" if "error_removed" in row and name != control else "")
        cells += [f"{100 * row['neighbours']:.1f} %", f"{row['reciprocal_rank']:.3f}"]
        cells += [f"{row['spearman'][task]:.4f} ({100 * row['spearman_ratio'][task]:.1f} %)" for task in pairs]
        cells.append(f"{row['tokens'] / 1e6:g}" if "tokens" in row else "")
        cells.append(f"{row['seconds'] / 60:.0f}" if "seconds" in row else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![cosine while training](distill.png)", ""])


def draw(file: Path, curves: dict[str, list[list[float]]]) -> None:
    """Cosine to the teacher over tokens, end to end."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_prop_cycle(color=colormaps["tab20"].colors)
    for name, curve in curves.items():
        axes.plot([tokens / 1e6 for tokens, _ in curve], [cosine for _, cosine in curve], label=name)
    axes.set(xlabel="million tokens, end to end", ylabel="cosine to the teacher while training", ylim=(0.5, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    main()
