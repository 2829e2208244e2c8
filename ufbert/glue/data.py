"""Rows of a task's files: tab-separated, with quotes taken literally, as GLUE is stored."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, shown
from ..tokenizer import Text
from .tasks import BUILT_IN, Split, Task, find_task

__all__ = ["Rows", "custom_task", "has_split", "load_task", "read_split", "read_train", "tasks_in"]

HEADED = ("label", "score")  # what the last column of a custom task's header is called


@dataclass(frozen=True)
class Rows:
    """Examples of one file.

    Attributes
    ----------
    file : Path
    texts : list of str or of (str, str)
    labels : list of str or float
        As the file spells them, numbers for regression; empty for a test file.
    index : list of str
        The file's own numbers where it has them (columns "index" and "id"), else from 0.
    skipped : int
        Malformed rows left out, where the official file is known to have some.
    """

    file: Path
    texts: list[Text]
    labels: list[str | float]
    index: list[str]
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.texts)


def tasks_in(data: str | os.PathLike[str]) -> list[str]:
    """Names of the tasks whose folders are in a data folder, GLUE's first, custom ones (with a train.tsv) last."""
    root = _folder(data)
    built_in = [task.name for task in BUILT_IN.values() if not task.folder and (root / task.name).is_dir()]
    found = sorted(path.name for path in root.iterdir() if (path / "train.tsv").is_file())
    return built_in + [name for name in found if name not in BUILT_IN]


def load_task(data: str | os.PathLike[str], name: str) -> tuple[Task, Path]:
    """Find a task and its folder; a custom task gets its columns and labels from its files.

    Raises
    ------
    InputError
        If there is no such folder, or a custom task's files do not fit.
    """
    root, task = _folder(data), find_task(name)
    folder = root / (task.folder or task.name)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: expected the folder of the task {task.name}, it is missing; the folder {root} has: "
            f"{', '.join(tasks_in(root)) or 'no tasks'}"
        )
    return (task if task.text else custom_task(task, folder)), folder


def custom_task(task: Task, folder: Path) -> Task:
    """Complete a custom task: text, perhaps its pair, and the label last, with a header or without."""
    file = folder / "train.tsv"
    if not file.is_file():
        file = folder / "dev.tsv"
    first = next(_records(file), (1, []))[1]
    if len(first) not in (2, 3):
        raise InputError(
            f"{file}: line 1: expected 2 columns (text, label) or 3 (text, text_pair, label), found {len(first)}; "
            f"the tasks with layouts of their own are {', '.join(BUILT_IN)}"
        )
    has_header = first[-1].strip().lower() in HEADED
    columns = tuple(first) if has_header else (*("text", "text_pair")[: len(first) - 1], "label")
    pair = columns[1] if len(columns) == 3 else ""
    task = replace(task, text=columns[0], text_pair=pair, label=columns[-1], columns=() if has_header else columns)
    if columns[-1].strip().lower() == "score":
        return replace(task, regression=True, metrics=("pearson", "spearman"), submitted="number")
    labels = sorted({str(label) for label in _read(task, file, True).labels})
    return replace(task, labels={label: label for label in labels})


def read_train(task: Task, folder: Path) -> Rows:
    """Read the training rows."""
    file = _existing(folder, task.train)
    return _read(task, file, True, _membership(file, dev=False))


def read_split(task: Task, split: Split, folder: Path) -> Rows:
    """Read the rows of a dev or test split; those of a test split have no labels, or labels that are not looked at.

    Raises
    ------
    InputError
        If there is no such file, or a row is malformed: for a test split any one, since every row wants a prediction.
    """
    file, labelled = _existing(folder, split.files), split in task.dev
    return _read(task, file, labelled, _membership(file, dev=True))


def has_split(split: Split, folder: Path) -> bool:
    """Tell whether a file of the split is there."""
    return any((folder / name).is_file() for name in split.files)


def _read(
    task: Task, file: Path, labelled: bool, belongs: Callable[[Sequence[str]], bool] = lambda record: True
) -> Rows:
    records = _records(file)
    header, number = list(task.columns), 0
    if not header or not labelled:  # test files have a header in every task of GLUE
        number, header = next(records, (1, []))
        if number and not labelled and task.columns and task.text not in header:  # a custom task without one
            header, records = list(task.columns[:-1]), _records(file)
    wanted = [name for name in (task.text, task.text_pair, task.label if labelled else "") if name]
    places = _places(file, header, wanted)
    counted = next((header.index(name) for name in ("index", "id") if name in header), None)
    texts: list[Text] = []
    labels: list[str | float] = []
    index: list[str] = []
    skipped = 0
    for number, record in records:
        if not belongs(record):
            continue
        try:
            parts, label = _cells(task, record, len(header), places, labelled)
        except ValueError as error:
            if labelled and task.skips:
                skipped += 1
                continue
            raise InputError(f"{file}: line {number}: {error}; correct or remove the line") from None
        texts.append((parts[0], parts[1]) if task.text_pair else parts[0])
        index.append(record[counted] if counted is not None else str(len(index)))
        labels += [label] if labelled else []
    if not texts:
        raise InputError(f"{file}: expected rows below the header, found the end of the file; copy the file anew")
    return Rows(file, texts, labels, index, skipped)


def _cells(
    task: Task, record: list[str], width: int, places: list[int], labelled: bool
) -> tuple[list[str], str | float]:
    """Take the texts and the label (or "") of a record.

    Raises
    ------
    ValueError
        If the record has another number of columns than the header, or the label is none of the task's.
    """
    if len(record) != width:
        raise ValueError(f"expected {width} columns separated by tabs, found {len(record)}")
    cells = [record[place] for place in places]
    if not labelled:
        return cells, ""
    label = cells.pop().strip()
    if task.regression:
        value = _number(label)
        if not math.isfinite(value):
            raise ValueError(f"expected a number as {task.label}, found {shown(label)}")
        return cells, value
    if task.labels and label not in task.labels:
        raise ValueError(f"expected {task.label} to be one of {', '.join(task.labels)}, found {shown(label)}")
    return cells, label


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _places(file: Path, header: list[str], wanted: list[str]) -> list[int]:
    missing = [name for name in wanted if name not in header]
    if missing:
        raise InputError(
            f"{file}: line 1: expected a header with the columns {', '.join(wanted)}, found "
            f"{shown(', '.join(header))}; is this the official file of the task?"
        )
    return [header.index(name) for name in wanted]


def _records(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines of a TSV file with their numbers; a quote is a character like any other, empty lines are left out."""
    try:
        # only \n and \r\n end a row: some texts of QQP and MNLI hold a lone \r, U+0085 or U+2028
        with open(file, encoding="utf-8-sig", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                line = line.removesuffix("\n").removesuffix("\r")
                if line:
                    yield number, line.split("\t")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: expected UTF-8 text, found other bytes ({error.reason}); convert it") from None
    except OSError as error:
        raise InputError(f"{file}: could not read it ({error.strerror}); copy it anew") from None


def _membership(file: Path, dev: bool) -> Callable[[Sequence[str]], bool]:
    """Build the test that splits Microsoft's training file of MRPC into train and dev, as GLUE's own script does."""
    if not file.name.startswith("msr_paraphrase_train"):
        return lambda record: True
    named = file.with_name("dev_ids.tsv")
    if not named.is_file():
        raise InputError(
            f"{named}: expected GLUE's list of the rows of {file.name} that are its dev set, it is missing; copy it "
            "there, or train.tsv and dev.tsv"
        )
    ids = {tuple(record[:2]) for _, record in _records(named)}
    return lambda record: (tuple(record[1:3]) in ids) == dev


def _existing(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: expected {' or '.join(names)}, it is missing; copy the task's folder anew")


def _folder(data: str | os.PathLike[str]) -> Path:
    root = Path(data)
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder with a folder for each task (CoLA, SST-2, ...), it is no folder")
    return root
