"""Texts to columns: the one worker behind files, shards and clusters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, shown
from ..heads import Normalize
from ..tasks import CrossEncoder, SentenceEncoder, TextClassifier
from ..text_model import WINDOW, TruncationWarning
from .sinks import Results

__all__ = ["Settings", "Worker"]

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Settings:
    """What a worker computes.

    Attributes
    ----------
    task : {"embed", "classify", "rerank"}
    model : str or None
        As the task's class takes it.
    dtype : str
    on_overflow : {"truncate", "warn", "error"}
    on_error : {"fail", "null"}
        What a row without a usable text does: end the job, or give null.
    options : dict
        Keyword arguments of `SentenceEncoder.encode`; ``top_k`` and ``function_to_apply`` of a classifier; ``query`` of
        a cross-encoder.
    model_options : dict
        Keyword arguments of the task's class.
    """

    task: str = "embed"
    model: str | None = None
    dtype: str = "float32"
    on_overflow: str = "truncate"
    on_error: str = "fail"
    options: Mapping[str, Any] = field(default_factory=dict)
    model_options: Mapping[str, Any] = field(default_factory=dict)


class _Task(NamedTuple):
    run: Callable[[list[Any]], Columns]
    widths: dict[str, int]
    strings: frozenset[str] = frozenset()
    normalized: bool = False


class Worker:
    """Runs a model on texts.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    widths : dict of str to int
        The columns of its results; 0 for one value a row.
    strings : frozenset of str
        Those columns that are not numbers.
    normalized : bool
        Whether results are embeddings of length 1.

    Raises
    ------
    CheckpointError, InputError
        As the task's class does.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._run, self.widths, self.strings, self.normalized = TASKS[settings.task](settings)

    def __call__(self, texts: Sequence[object], where: Callable[[int], str] = "row {}".format) -> Results:
        """Run N texts or pairs of texts.

        Parameters
        ----------
        texts : sequence
            Anything but a str, or a pair of them, is a row without a usable text.
        where : callable
            Says where a row stands, for messages.

        Raises
        ------
        InputError
            With ``on_error="fail"``, if a row has no usable text, or one that is too long for on_overflow="error".
        """
        failed = {number: why for number, text in enumerate(texts) if (why := _unusable(text))}
        self._refuse(failed, where)
        good = [number for number in range(len(texts)) if number not in failed]
        try:
            columns, truncated = self._counted([texts[number] for number in good])
        except InputError:
            failed |= self._each(good, texts)
            self._refuse(failed, where)
            good = [number for number in good if number not in failed]
            columns, truncated = self._counted([texts[number] for number in good])
        if failed:
            columns = {name: _spread(values, good, len(texts)) for name, values in columns.items()}
        return Results(columns, failed, truncated)

    def _refuse(self, failed: Mapping[int, str], where: Callable[[int], str]) -> None:
        if failed and self.settings.on_error == "fail":
            first = min(failed)
            raise InputError(f"{where(first)}: {failed[first]}; correct it, or write nulls: --on-error null")

    def _each(self, numbers: list[int], texts: Sequence[object]) -> dict[int, str]:
        """Find the texts that the model does not take."""
        found = {number: self._refusal(texts[number]) for number in numbers}
        return {number: why for number, why in found.items() if why}

    def _refusal(self, text: object) -> str:
        try:
            self._counted([text])
        except InputError as error:
            return str(error)
        return ""

    def _counted(self, texts: list[object]) -> tuple[Columns, int]:
        """Run texts, and count those that were cut."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            columns = self._run(texts)
        cut = [warning.message for warning in caught if isinstance(warning.message, TruncationWarning)]
        for warning in caught:
            if not isinstance(warning.message, TruncationWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        return columns, sum(warning.count for warning in cut)


def _unusable(text: object) -> str:
    """Say why something is no text; empty if it is one."""
    parts = text if isinstance(text, tuple) else (text,)
    wrong = [part for part in parts if not isinstance(part, str)]
    if not wrong:
        return ""
    return "expected a text, found " + ("null" if wrong[0] is None else f"{type(wrong[0]).__name__}: {shown(wrong[0])}")


def _spread(values: NDArray[Any], places: list[int], count: int) -> NDArray[Any]:
    """Put the rows of `values` at `places` among `count` rows, which are empty otherwise."""
    whole = np.full((count, *values.shape[1:]), None if values.dtype == object else 0, values.dtype)
    whole[places] = values
    return whole


def _counting(on_overflow: str) -> str:
    """Let a task count what it cuts, whether or not the user wants to hear of it."""
    return "error" if on_overflow == "error" else "warn"


def _embed(settings: Settings) -> _Task:
    encoder = SentenceEncoder(settings.model, dtype=settings.dtype, **settings.model_options)
    options = dict(settings.options) | {"batch_size": WINDOW, "on_overflow": _counting(settings.on_overflow)}
    width = encoder.encode([], **options).shape[1]
    is_whole = width == encoder.dimension and any(isinstance(module, Normalize) for module in encoder._model.modules)
    normalized = bool(options.get("normalize_embeddings")) or is_whole
    run = lambda texts: {"embedding": encoder.encode(texts, **options)}  # noqa: E731
    return _Task(run, {"embedding": width}, normalized=normalized)


def _classify(settings: Settings) -> _Task:
    classifier = TextClassifier(settings.model, settings.dtype)
    count = min(settings.options.get("top_k") or len(classifier.labels), len(classifier.labels))

    def run(texts: list[Any]) -> Columns:
        overflow = _counting(settings.on_overflow)
        apply = settings.options.get("function_to_apply")
        ranked: Any = list(classifier.stream(iter(texts), None, apply, batch_size=WINDOW, on_overflow=overflow))
        labels: NDArray[Any] = np.array([[label["label"] for label in row[:count]] for row in ranked], object)
        scores = np.array([[label["score"] for label in row[:count]] for row in ranked], np.float32)
        labels, scores = labels.reshape(-1, count), scores.reshape(-1, count)
        return {"label": labels[:, 0], "score": scores[:, 0]} if count == 1 else {"labels": labels, "scores": scores}

    widths = {"label": 0, "score": 0} if count == 1 else {"labels": count, "scores": count}
    return _Task(run, widths, frozenset({"label", "labels"} & widths.keys()))


def _rerank(settings: Settings) -> _Task:
    on_overflow = _counting(settings.on_overflow)
    scorer = CrossEncoder(settings.model or "", on_overflow=on_overflow, dtype=settings.dtype, **settings.model_options)
    if scorer.num_labels != 1:
        raise InputError(f"rerank: expected a model with one label, got {scorer.num_labels}; use classify")
    query = settings.options.get("query")

    def run(texts: list[Any]) -> Columns:
        pairs = texts if query is None else [(query, text) for text in texts]
        return {"score": scorer.predict(pairs, WINDOW)}

    return _Task(run, {"score": 0})


TASKS: dict[str, Callable[[Settings], _Task]] = {"embed": _embed, "classify": _classify, "rerank": _rerank}
