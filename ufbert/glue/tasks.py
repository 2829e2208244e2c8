"""GLUE's tasks as data: files, columns, labels, metrics. Nothing else knows a task by its name.

Layouts are those of the official download (arXiv 1804.07461); orders of labels are Hugging Face's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["AVERAGED", "BUILT_IN", "GLUE", "Split", "Task", "find_task"]


@dataclass(frozen=True)
class Split:
    """One file of a task.

    Attributes
    ----------
    name : str
        What its predictions and scores are called: "SST-2", "MNLI-m".
    files : tuple of str
        Names that it may have, in the order of preference.
    official_rows : int or None
        Rows of GLUE's own file: another number means another split, whose scores are no GLUE scores.
    """

    name: str
    files: tuple[str, ...]
    official_rows: int | None = None


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes
    ----------
    name : str
        GLUE's, which is also the name of its prediction file.
    folder : str
        Where its files are, inside the data folder.
    text, text_pair, label : str
        Columns by their name in the header; `text_pair` is "" for single texts.
    columns : tuple of str
        Names of the columns where train and dev files have no header (CoLA); () where they have one.
    labels : mapping of str to str
        A label's spelling in the file to its name, in the order of the classes; empty for regression, and for tasks
        whose labels are those of the training rows.
    metrics : tuple of str
        Keys of `ufbert.glue.metrics.METRICS`; the first is the one that plots show. A score is their mean.
    regression : bool
        The label is a number.
    train : tuple of str
        Names that the training file may have.
    dev, test : tuple of Split
    submitted : {"spelling", "name", "number"}
        How GLUE's server wants predictions: as the file spells labels, by their names, or as a number.
    bounds : (float, float) or None
        What submitted numbers are cut to.
    skips : str
        What is known to be wrong with rows of the official train and dev files, which are skipped and counted; ""
        where any such row is an error.
    """

    name: str
    text: str
    text_pair: str = ""
    label: str = "label"
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("accuracy",)
    regression: bool = False
    train: tuple[str, ...] = ("train.tsv",)
    dev: tuple[Split, ...] = ()
    test: tuple[Split, ...] = ()
    columns: tuple[str, ...] = ()
    submitted: str = "spelling"
    bounds: tuple[float, float] | None = None
    skips: str = ""
    folder: str = ""


def _dev(name: str, rows: int | None = None) -> tuple[Split, ...]:
    return (Split(name, ("dev.tsv",), rows),)


def _test(name: str) -> tuple[Split, ...]:
    return (Split(name, ("test.tsv",)),)


ENTAILMENT = {"entailment": "entailment", "not_entailment": "not_entailment"}
THREE_WAY = {"entailment": "entailment", "neutral": "neutral", "contradiction": "contradiction"}

GLUE = (
    Task(
        "CoLA",
        "sentence",
        labels={"0": "unacceptable", "1": "acceptable"},
        metrics=("matthews",),
        columns=("source", "label", "mark", "sentence"),
        dev=_dev("CoLA", 1043),
        test=_test("CoLA"),
    ),
    Task("SST-2", "sentence", labels={"0": "negative", "1": "positive"}, dev=_dev("SST-2", 872), test=_test("SST-2")),
    Task(
        "MRPC",
        "#1 String",
        "#2 String",
        "Quality",
        labels={"0": "not_equivalent", "1": "equivalent"},
        metrics=("f1", "accuracy"),
        # Microsoft's own files have these names; `dev_ids.tsv` then says which training rows are the dev set.
        train=("train.tsv", "msr_paraphrase_train.txt"),
        dev=(Split("MRPC", ("dev.tsv", "msr_paraphrase_train.txt"), 408),),
        test=(Split("MRPC", ("test.tsv", "msr_paraphrase_test.txt")),),
    ),
    Task(
        "QQP",
        "question1",
        "question2",
        "is_duplicate",
        labels={"0": "not_duplicate", "1": "duplicate"},
        metrics=("f1", "accuracy"),
        skips="rows cut short",
        dev=_dev("QQP", 40_430),
        test=_test("QQP"),
    ),
    Task(
        "STS-B",
        "sentence1",
        "sentence2",
        "score",
        metrics=("pearson", "spearman"),
        regression=True,
        submitted="number",
        bounds=(0.0, 5.0),  # the server refuses values outside
        dev=_dev("STS-B", 1500),
        test=_test("STS-B"),
    ),
    Task(
        "MNLI",
        "sentence1",
        "sentence2",
        "gold_label",
        labels=THREE_WAY,
        dev=(Split("MNLI-m", ("dev_matched.tsv",), 9815), Split("MNLI-mm", ("dev_mismatched.tsv",), 9832)),
        test=(
            Split("MNLI-m", ("test_matched.tsv",)),
            Split("MNLI-mm", ("test_mismatched.tsv",)),
            Split("AX", ("../diagnostic/diagnostic.tsv", "../AX/AX.tsv", "diagnostic.tsv")),
        ),
        submitted="name",
        skips='rows cut short or without a gold label ("-")',
    ),
    Task(
        "QNLI",
        "question",
        "sentence",
        labels=ENTAILMENT,
        submitted="name",
        dev=_dev("QNLI", 5463),
        test=_test("QNLI"),
    ),
    Task("RTE", "sentence1", "sentence2", labels=ENTAILMENT, submitted="name", dev=_dev("RTE", 277), test=_test("RTE")),
    Task(
        "WNLI",
        "sentence1",
        "sentence2",
        labels={"0": "not_entailment", "1": "entailment"},
        dev=_dev("WNLI", 71),
        test=_test("WNLI"),
    ),
)
"""The nine tasks of GLUE."""

OTHERS = (
    Task("SICK", "sentence1", "sentence2", labels=THREE_WAY, dev=_dev("SICK"), test=_test("SICK")),
    Task(
        "SICK-R",
        "sentence1",
        "sentence2",
        "score",
        metrics=("pearson", "spearman"),
        regression=True,
        submitted="number",
        folder="SICK",
        dev=_dev("SICK-R"),
        test=_test("SICK-R"),
    ),
)
"""Tasks outside GLUE that need more than a two- or three-column file."""

BUILT_IN = {task.name: task for task in (*GLUE, *OTHERS)}
AVERAGED = tuple(task.name for task in GLUE if task.name != "WNLI")
"""GLUE's tasks that averages are over: WNLI is left out, as in arXiv 1810.04805 and 2311.10770."""


def find_task(name: str) -> Task:
    """Return a task by name; an unknown name is a custom task, two or three columns with the label last."""
    known = {key.lower(): task for key, task in BUILT_IN.items()}
    return known.get(name.lower()) or Task(name, "", dev=_dev(name), test=_test(name))
