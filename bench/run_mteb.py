"""Scores of models by MTEB's own code, on data in GLUE's layout, beside the figures of `ufbert.compare`.

    python bench/run_mteb.py --data GLUE_DIR --texts HELDOUT [MODEL ...]

A model is a folder or a bundled name; by default all bundled encoders, and a control: the first one with feed-forward
layers that add nothing. MTEB's tasks are made of the files, because its own data has to be downloaded. Three of them
are measured as `ufbert.compare` does too (columns "ours"), and have to agree. Writes mteb.json and mteb.md to --report.
Needs the packages mteb, sentence-transformers and torch, and the extra glue.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import mteb
import numpy as np
import ufbert_weights
from datasets import Dataset, DatasetDict
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from safetensors.numpy import load_file, save_file

from ufbert.compare import halves, reciprocal_rank
from ufbert.glue import load_task, read_split, read_train
from ufbert.glue.metrics import measure
from ufbert.integrations.mteb import UfbertModel
from ufbert.routes import Corpus

RESULTS = Path(__file__).parent / "results"
STS = {"STS-B": "STS 2012-14", "SICK-R": "SICK"}
HALVES = "halves"
CONTROL = "control"
ABOUT = {
    "STS 2012-14": "Spearman of cosines to people's scores of 1,200 pairs, the stand-in for STS-B",
    "SICK": "the same for 500 pairs",
    HALVES: "MRR@10 of the second halves of longer held-out sentences, sought by the first",
    "MRPC": "average precision",
    "SST-2": "accuracy of MTEB's logistic regression on 32 examples a label, on the stand-in for SST-2",
    "TREC": "accuracy, in the same way",
}
TASKS = [*STS, HALVES, "MRPC", "SST-2", "TREC"]
TOLERANCE = 1e-4  # of a score from 0 to 1


def metadata(name: str, kind: str, main_score: str, revision: str = "local") -> TaskMetadata:
    return TaskMetadata(
        name=name, description=name, type=kind, dataset={"path": f"local/{name}", "revision": revision},
        eval_splits=["test"], eval_langs=["eng-Latn"], main_score=main_score, category="t2t",
    )  # fmt: skip


def columns(**values: list) -> Dataset:
    return Dataset.from_dict(values)


def sts(name: str, data: str, low: int):
    task, folder = load_task(data, name)
    rows = read_split(task, task.dev[0], folder)
    first, second = zip(*rows.texts, strict=True)

    class Task(AbsTaskSTS):
        min_score, max_score = low, 5

        def load_data(self, **_):
            test = columns(sentence1=list(first), sentence2=list(second), score=[float(label) for label in rows.labels])
            self.dataset, self.data_loaded = DatasetDict({"test": test}), True

    Task.metadata = metadata(STS[name], "STS", "cosine_spearman")
    return Task()


def retrieval(texts: list[str]):
    first, second = halves(texts)

    class Task(AbsTaskRetrieval):
        def load_data(self, **_):
            ids = [str(number) for number in range(len(first))]
            split = {
                "queries": columns(id=ids, text=first),
                "corpus": columns(id=ids, text=second, title=[""] * len(ids)),
                "relevant_docs": {key: {key: 1} for key in ids},
                "top_ranked": None,
            }
            self.dataset, self.data_loaded = {"default": {"test": split}}, True

    Task.metadata = metadata(HALVES, "Retrieval", "mrr_at_10")
    return Task()


def pairs(name: str, data: str):
    task, folder = load_task(data, name)
    rows = read_split(task, task.dev[0], folder)
    first, second = zip(*rows.texts, strict=True)

    class Task(AbsTaskPairClassification):
        def load_data(self, **_):
            labels = [int(label == "1") for label in rows.labels]
            test = columns(sentence1=list(first), sentence2=list(second), labels=labels)
            self.dataset, self.data_loaded = DatasetDict({"test": test}), True

    Task.metadata = metadata(name, "PairClassification", "max_ap")
    return Task()


def classification(name: str, data: str):
    task, folder = load_task(data, name)
    splits = {"train": read_train(task, folder), "test": read_split(task, task.dev[0], folder)}
    known = sorted(set(splits["train"].labels))

    class Task(AbsTaskClassification):
        samples_per_label = 32

        def load_data(self, **_):
            parts = {
                key: columns(text=list(rows.texts), label=[known.index(label) for label in rows.labels])
                for key, rows in splits.items()
            }
            self.dataset, self.data_loaded = DatasetDict(parts), True

    Task.metadata = metadata(name, "Classification", "accuracy")
    return Task()


@contextmanager
def without_feed_forward(folder: Path) -> Iterator[Path]:
    """Give a copy of a dense model whose feed-forward layers add nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / CONTROL
        for file in folder.rglob("*"):
            if file.is_file() and file.suffix in (".json", ".txt"):
                (copy / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
                (copy / file.relative_to(folder)).write_bytes(file.read_bytes())
        tensors = load_file(folder / "model.safetensors")
        added = [name for name in tensors if ".output.dense." in name and ".attention." not in name]
        if not added:
            raise SystemExit(f"{folder}: expected a dense BERT as the first model, found no output.dense in its layers")
        save_file(tensors | {name: 0 * tensors[name] for name in added}, copy / "model.safetensors")
        yield copy


class Model(UfbertModel):
    """Embeds a text once: its bits do not depend on what it is embedded with."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.known: dict[str, np.ndarray] = {}

    def rows(self, texts: list[str]) -> np.ndarray:
        new = sorted({text for text in texts if text not in self.known})
        self.known.update(zip(new, self.adapter.texts(new), strict=True))
        return np.stack([self.known[text] for text in texts])

    def encode(self, inputs, *, task_metadata, **_) -> np.ndarray:
        return self.rows([text for batch in inputs for text in batch["text"]])


def own_figures(model: Model, texts: list[str], data: str, tasks: list[str]) -> dict[str, float]:
    figures = {}
    for name in (name for name in STS if name in tasks):
        task, folder = load_task(data, name)
        rows = read_split(task, task.dev[0], folder)
        first, second = (model.rows(list(side)) for side in zip(*rows.texts, strict=True))
        labels = [float(label) for label in rows.labels]
        figures[STS[name]] = measure(["spearman"], labels, (unit(first) * unit(second)).sum(1))["spearman"]
    if HALVES in tasks:
        figures[HALVES] = reciprocal_rank(*(unit(model.rows(side)) for side in halves(texts)))
    return figures


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    arguments = parse()
    texts = list(Corpus(arguments.texts))
    makers = {
        "STS-B": lambda: sts("STS-B", arguments.data, 0),
        "SICK-R": lambda: sts("SICK-R", arguments.data, 1),
        HALVES: lambda: retrieval(texts),
        "MRPC": lambda: pairs("MRPC", arguments.data),
        "SST-2": lambda: classification("SST-2", arguments.data),
        "TREC": lambda: classification("TREC", arguments.data),
    }
    tasks = [makers[name]() for name in arguments.tasks]
    folders = [Path(ufbert_weights.path(m)) if m in ufbert_weights.names() else Path(m) for m in arguments.models]
    rows = {}
    arguments.report.mkdir(parents=True, exist_ok=True)
    with without_feed_forward(folders[0]) as control:
        for folder in [*folders, control]:
            model = Model(str(folder))
            ours = own_figures(model, texts, arguments.data, arguments.tasks)
            found = mteb.evaluate(model, tasks, cache=None, show_progress_bar=False).task_results
            scores = {result.task_name: float(result.get_score()) for result in found}
            rows[folder.name] = {"revision": model.mteb_model_meta.revision, "mteb": scores, "ours": ours}
            print(folder.name, scores, ours, flush=True)
    largest = max(abs(row["mteb"][name] - own) for row in rows.values() for name, own in row["ours"].items())
    facts = {"mteb": version("mteb"), "texts": len(texts), "largest_difference": largest, "rows": rows}
    (arguments.report / "mteb.json").write_text(json.dumps(facts, indent=1) + "\n")
    table = render(facts, arguments.models)
    (arguments.report / "mteb.md").write_text(table, encoding="utf-8")
    print(table)
    if largest > TOLERANCE:
        raise SystemExit(f"MTEB's scores and ours differ by {largest:.2g}, expected at most {TOLERANCE}")


def render(facts: dict, models: list[str]) -> str:
    rows = facts["rows"]
    names = list(next(iter(rows.values()))["mteb"])
    own = list(next(iter(rows.values()))["ours"])
    heads = ["", *(f"{name}, MTEB | {name}, ours" if name in own else name for name in names)]
    command = " ".join(["python bench/run_mteb.py --data GLUE_DIR --texts HELDOUT", *models])
    if len(names) < len(TASKS):
        shown = {shown: name for name, shown in STS.items()}
        command += " --tasks " + " ".join(shown.get(name, name) for name in names)
    about = " ".join(f"{name}: {ABOUT[name]}." for name in names)
    lines = [
        "# MTEB's code on local data",
        "",
        f"Made by `{command}` with mteb {facts['mteb']}, in float32. {about} "
        '"Ours" is computed as by `ufbert.compare`, as in the table of converted models; the largest difference is '
        f"{facts['largest_difference']:.1g}. `{CONTROL}` is the dense model whose feed-forward layers add nothing, "
        "untrained. These are no scores of MTEB's leaderboard.",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * (1 + len(names) + len(own)),
    ]
    for model, row in rows.items():
        cells = []
        for name in names:
            cells.append(f"{row['mteb'][name]:.4f}")
            cells += [f"{row['ours'][name]:.4f}"] if name in own else []
        lines.append("| " + " | ".join([model, *cells]) + " |")
    return "\n".join([*lines, ""])


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    encoders = [name for name in ufbert_weights.names() if name.startswith("all-")]
    parser.add_argument("models", nargs="*", default=encoders, metavar="MODEL")
    parser.add_argument("--data", required=True, help="GLUE's layout, with STS-B, SICK, MRPC, SST-2 and TREC")
    parser.add_argument("--texts", required=True, help="one a line, that nothing was trained on")
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--report", type=Path, default=RESULTS)
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
