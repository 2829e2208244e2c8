"""Classification with labels that are given with the texts, by a model of natural-language inference."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..activations import softmax
from ..errors import CheckpointError, InputError, shown
from ..text_model import WINDOW, check_batch_size, each_text
from .load import load_texts, open_model
from .text_classifier import class_logits

__all__ = ["TEMPLATE", "Classified", "ZeroShotClassifier"]

TEMPLATE = "This example is {}."


class Classified(TypedDict):
    """A text with its labels, the likeliest first, and their scores."""

    sequence: str
    labels: list[str]
    scores: list[float]


class ZeroShotClassifier:
    """Classifies texts by labels of the caller's, with the results of transformers' zero-shot-classification pipeline.

    The model says for each label how far the text entails a sentence with it.

    Parameters
    ----------
    folder : str or path
        A folder with a classifier of natural-language inference and its tokenizer, or the name of such a model of the
        Hugging Face hub.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications; see `ufbert.load`.
    entailment_id : int, optional
        Number of the label that means entailment; by default the one whose name begins with "entail".
    revision, token, cache_folder, local_files_only : optional
        Of a model of the hub; see `ufbert.download`.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or no label of the model means entailment.

    Examples
    --------
    >>> import ufbert
    >>> classify = ufbert.ZeroShotClassifier("path/to/an-nli-model")  # doctest: +SKIP
    >>> classify("The striker scored twice.", ["sport", "politics"])["labels"]  # doctest: +SKIP
    ['sport', 'politics']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        dtype: str = "float32",
        entailment_id: int | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
    ) -> None:
        root = open_model(
            folder, revision=revision, token=token, cache_folder=cache_folder, local_files_only=local_files_only
        )
        texts = load_texts(root, "sequence-classification", dtype)
        self._texts = replace(texts, tokenizer=replace(texts.tokenizer, truncate_first=True))  # labels stay whole
        names = self._texts.model.config.labels
        if len(names) < 2:
            raise CheckpointError(f"{folder}: expected a model with at least two labels, found {shown(names)}")
        if entailment_id is None:
            found = [index for index, name in enumerate(names) if name.lower().startswith("entail")]
            if not found:
                raise CheckpointError(
                    f"{folder}: expected a label whose name begins with entail, found {shown(names)}; "
                    "use a model of natural-language inference, or say which label it is: entailment_id"
                )
            entailment_id = found[-1]
        self.entailment_id = checks.integer(entailment_id, "entailment_id", 0, len(names) - 1)

    def __call__(
        self,
        sequences: str | Iterable[str],
        candidate_labels: str | Sequence[str],
        hypothesis_template: str = TEMPLATE,
        multi_label: bool = False,
        batch_size: int = 32,
        on_overflow: str = "truncate",
    ) -> Classified | list[Classified]:
        """Rank the labels for each text.

        Parameters
        ----------
        sequences : str or iterable of str
        candidate_labels : str or sequence of str
            A str has labels with commas between them.
        hypothesis_template : str
            A sentence in which ``{}`` stands for a label.
        multi_label : bool
            Score each label by itself, between 0 and 1; else the scores of a text sum to 1.
        batch_size : int
            Pairs of a text and a label in one forward pass at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with pairs that are too long for the model; texts are cut, not labels.

        Returns
        -------
        ``{sequence, labels, scores}``, for an iterable a list of them
            The likeliest label first.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        texts = [sequences] if isinstance(sequences, str) else sequences
        found = list(
            self._results(texts, candidate_labels, hypothesis_template, multi_label, batch_size, on_overflow, WINDOW)
        )
        return found[0] if isinstance(sequences, str) else found

    def stream(
        self,
        sequences: Iterable[str],
        candidate_labels: str | Sequence[str],
        hypothesis_template: str = TEMPLATE,
        multi_label: bool = False,
        batch_size: int = 32,
        on_overflow: str = "truncate",
    ) -> Iterator[Classified]:
        """Classify any number of texts, holding `batch_size` pairs of a text and a label at a time.

        Parameters are those of a call; memory does not grow with the number of texts.

        Yields
        ------
        ``{sequence, labels, scores}``
            One for each text, in order.
        """
        return self._results(sequences, candidate_labels, hypothesis_template, multi_label, batch_size, on_overflow, 0)

    def _results(
        self, sequences: Iterable[str], candidate_labels: str | Sequence[str], template: str, multi_label: bool,
        batch_size: int, on_overflow: str, window: int,
    ) -> Iterator[Classified]:  # fmt: skip
        """Check the arguments; return the results, read in windows of at least `window` pairs."""
        labels = _labels(candidate_labels)
        hypotheses = [_hypothesis(template, label) for label in labels]
        waiting: deque[str] = deque()

        def pairs(texts: Iterator[object]) -> Iterator[tuple[object, str]]:
            for number, text in enumerate(texts):
                if not isinstance(text, str):
                    raise InputError(f"sequences: expected str, got {type(text).__name__} as number {number}")
                waiting.append(text)
                for hypothesis in hypotheses:
                    yield text, hypothesis

        read = pairs(each_text(sequences, "sequences"))
        windows = class_logits(self._texts, read, check_batch_size(batch_size), on_overflow, window)

        def results() -> Iterator[Classified]:
            rows: list[NDArray[np.float32]] = []
            for logits in windows:
                for row in logits:
                    rows.append(row)
                    if len(rows) == len(labels):
                        scores = self._scores(np.stack(rows), multi_label)
                        order = np.argsort(-scores, kind="stable").tolist()
                        ranked = [labels[index] for index in order]
                        yield {"sequence": waiting.popleft(), "labels": ranked, "scores": scores[order].tolist()}
                        rows.clear()

        return results()

    def _scores(self, logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float32]:
        """Scores of a text's L labels from the logits of its pairs: (L, C) -> (L,)."""
        if multi_label or len(logits) == 1:
            # As transformers has it, whatever the labels are called: contradiction is the first label, or the last.
            contradiction = -1 if self.entailment_id == 0 else 0
            both: NDArray[np.float32] = softmax(logits[:, [contradiction, self.entailment_id]])[:, 1]
            return both
        scores: NDArray[np.float32] = softmax(logits[None, :, self.entailment_id])[0]
        return scores


def _labels(candidate_labels: object) -> list[str]:
    if isinstance(candidate_labels, str):
        candidate_labels = [label.strip() for label in candidate_labels.split(",") if label.strip()]
    if not isinstance(candidate_labels, (list, tuple)) or not all(isinstance(label, str) for label in candidate_labels):
        raise InputError(f"candidate_labels: expected a list of str, got {shown(candidate_labels)}")
    if not candidate_labels:
        raise InputError("candidate_labels: expected at least one label, got none")
    return list(candidate_labels)


def _hypothesis(template: object, label: str) -> str:
    if not isinstance(template, str):
        raise InputError(f"hypothesis_template: expected str, got {type(template).__name__}")
    try:
        hypothesis = template.format(label)
    except (IndexError, KeyError, ValueError) as error:
        raise InputError(
            f"hypothesis_template: expected one {{}} where the label goes, got {shown(template)}: {error}"
        ) from None
    if hypothesis == template:
        raise InputError(f"hypothesis_template: expected {{}} where the label goes, got {shown(template)}")
    return hypothesis
