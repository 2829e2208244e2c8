"""Text and text-pair classification."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..activations import TABLE, Function, softmax
from ..checkpoint.folder import ModelFolder
from ..checkpoint.names import default_folder
from ..errors import InputError, shown
from ..heads import SequenceClassifier
from ..text_model import ON_OVERFLOW, WINDOW, TextModel, check_batch_size, each_text
from .load import load_texts, top

__all__ = ["Label", "TextClassifier", "class_logits"]

FUNCTIONS: Mapping[str, Function] = {"softmax": softmax, "sigmoid": TABLE["sigmoid"], "none": TABLE["identity"]}
Input = str | tuple[str, str] | Mapping[str, str]


class Label(TypedDict):
    """A class and its score."""

    label: str
    score: float


class TextClassifier:
    """Classifies texts or pairs of texts, with the results of transformers' text-classification pipeline.

    Parameters
    ----------
    folder : str or path, optional
        A folder with a sequence classifier, BERT's or a crammed one, and its tokenizer. None for the bundled
        sentiment classifier of English sentences (package ``ufbert-weights``).
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, dtype: str = "float32") -> None:
        root = ModelFolder(default_folder("sentiment") if folder is None else folder)
        self._texts = load_texts(root, "sequence-classification", dtype)
        self.labels = self._texts.model.config.labels

    def __call__(
        self,
        texts: Input | Iterable[Input],
        top_k: int | None = 1,
        function_to_apply: str | None = None,
        batch_size: int = 32,
        on_overflow: str = "truncate",
    ) -> Label | list[Label] | list[list[Label]]:
        """Give each text its likeliest labels.

        Parameters
        ----------
        texts : str, (str, str), dict, or an iterable of those
            A dict has ``text`` and perhaps ``text_pair``. A list is always a list of inputs, a tuple a pair.
        top_k : int, optional
            How many labels to give; None for all.
        function_to_apply : {"softmax", "sigmoid", "none"}, optional
            What makes scores of the logits. By default "none" for regression, "sigmoid" for multi-label models and
            those with one label, else "softmax".
        batch_size : int
            Texts in one forward pass at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with texts that are too long for the model.

        Returns
        -------
        list
            With ``top_k=1`` one ``{label, score}`` an input (for a single dict that one alone); otherwise, for a
            single input a list of them, best first, and for several inputs a list of such lists.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        single = isinstance(texts, (str, tuple, Mapping))
        inputs: Iterable[object] = [texts] if single else texts
        ranked = list(self._ranked(inputs, top_k, function_to_apply, batch_size, on_overflow, WINDOW))
        if top_k == 1:
            best = [row[0] for row in ranked]
            return best[0] if isinstance(texts, Mapping) else best
        return ranked[0] if single else ranked

    def stream(
        self,
        texts: Iterable[Input],
        top_k: int | None = 1,
        function_to_apply: str | None = None,
        batch_size: int = 32,
        on_overflow: str = "truncate",
    ) -> Iterator[Label] | Iterator[list[Label]]:
        """Classify any number of inputs, holding `batch_size` of them at a time.

        Parameters are those of a call; memory does not grow with the number of texts.

        Yields
        ------
        ``{label, score}``, or a list of them
            What a call gives for each input, in order: a list unless ``top_k=1``.
        """
        ranked = self._ranked(texts, top_k, function_to_apply, batch_size, on_overflow, 0)
        return (row[0] for row in ranked) if top_k == 1 else ranked

    def logits(
        self, texts: Iterable[Input], batch_size: int = 32, on_overflow: str = "truncate"
    ) -> NDArray[np.float32]:
        """Return the classifier's raw scores of N inputs: (N, C) float32."""
        rows = list(self._logits(texts, batch_size, on_overflow, WINDOW))
        return np.concatenate([np.zeros((0, len(self.labels)), np.float32), *rows])

    def _logits(
        self, texts: Iterable[object], batch_size: int, on_overflow: str, window: int
    ) -> Iterator[NDArray[np.float32]]:
        """Check the arguments; return the logits (N, C) of windows of at least `window` inputs."""
        return class_logits(self._texts, map(_text, each_text(texts, "texts")), batch_size, on_overflow, window)

    def _ranked(
        self, texts: Iterable[object], top_k: int | None, function: str | None, batch_size: int, on_overflow: str,
        window: int,
    ) -> Iterator[list[Label]]:  # fmt: skip
        count = len(self.labels) if top_k is None else checks.integer(top_k, "top_k", 1)
        apply = FUNCTIONS[checks.choice(self._function(function), "function_to_apply", FUNCTIONS)]
        windows = self._logits(texts, batch_size, on_overflow, window)
        return (self._labels(row, count) for logits in windows for row in apply(logits))

    def _labels(self, scores: NDArray[np.float32], count: int) -> list[Label]:
        return [{"label": self.labels[index], "score": float(scores[index])} for index in top(scores, count).tolist()]

    def _function(self, function: str | None) -> str:
        if function is not None:
            return function
        problem_type = self._texts.model.config.problem_type
        one_each = problem_type == "multi_label_classification" or len(self.labels) == 1
        return "none" if problem_type == "regression" else "sigmoid" if one_each else "softmax"


def class_logits(
    model: TextModel, texts: Iterable[object], batch_size: int, on_overflow: str, window: int
) -> Iterator[NDArray[np.float32]]:
    """Run a sequence classifier over texts and pairs.

    Parameters
    ----------
    model : TextModel
        With a sequence classifier's head.
    texts : iterable of str or of (str, str)
    batch_size : int
        Texts in one forward pass at most.
    on_overflow : {"truncate", "warn", "error"}
    window : int
        Texts that are read together, if that is more than `batch_size`.

    Returns
    -------
    iterator of (N, C) float32 arrays
        One for each window.

    Raises
    ------
    InputError
        If an argument does not fit.
    """
    batch_size = check_batch_size(batch_size)
    checks.choice(on_overflow, "on_overflow", ON_OVERFLOW)
    head = model.model.head
    assert isinstance(head, SequenceClassifier)

    def rows() -> Iterator[NDArray[np.float32]]:
        for read in model.windows(texts, "texts", max(window, batch_size), on_overflow, pairs=True):
            logits = np.empty((len(read.texts), model.model.config.num_labels), np.float32)
            for run in model.run(read.encodings, batch_size):
                logits[run.indices] = head(run.hidden, run.batch)
            yield logits

    return rows()


def _text(text: object) -> object:
    """Take a dict as the text or pair that it holds."""
    if not isinstance(text, Mapping):
        return text
    if not set(text) <= {"text", "text_pair"} or "text" not in text:
        raise InputError(f"texts: expected dicts with text and perhaps text_pair, got the keys {shown(list(text))}")
    pair = text.get("text_pair")
    alone = pair is None or (isinstance(pair, str) and not pair)
    return text["text"] if alone else (text["text"], pair)
