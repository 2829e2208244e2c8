"""Text and text-pair classification."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..activations import TABLE, softmax
from ..errors import InputError, shown
from ..tokenizer import Text
from .bundled import model_folder
from .load import labels, load_parts, top
from .run import check_batch_size, check_choice, check_count, check_overflow, hidden_states

__all__ = ["TextClassifier"]

FUNCTIONS = {"softmax": softmax, "sigmoid": TABLE["sigmoid"], "none": TABLE["identity"]}


class TextClassifier:
    """Classifies texts or pairs of texts, with the results of transformers' text-classification pipeline.

    Parameters
    ----------
    folder : str or path, optional
        A folder with a sequence classifier, BERT's or a crammed one, and its tokenizer. None for the bundled
        sentiment classifier of English sentences (package ``ufbert-weights``).
    dtype : {"float32", "bfloat16", "int8"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, dtype: str = "float32") -> None:
        folder = model_folder(folder, default="sentiment")
        self._model, self._head, self._tokenizer = load_parts(folder, "sequence-classification", dtype)
        self.labels = labels(self._model)

    def __call__(
        self,
        texts: Any,
        top_k: int | None = 1,
        function_to_apply: str | None = None,
        batch_size: int = 32,
        on_overflow: str = "truncate",
    ) -> Any:
        """Give each text its likeliest labels.

        Parameters
        ----------
        texts : str, (str, str), dict, or a list of those
            A dict has ``text`` and perhaps ``text_pair``. A list is always a list of inputs, a tuple a pair.
        top_k : int, optional
            How many labels to give; None for all.
        function_to_apply : {"softmax", "sigmoid", "none"}, optional
            What makes scores of the logits. By default "none" for regression, "sigmoid" for multi-label models and
            those with one label, else "softmax".
        batch_size : int
            Texts in one pass at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with texts that are too long for the model.

        Returns
        -------
        list
            With ``top_k=1`` one ``{label, score}`` an input (for a single dict that one alone); otherwise, for a
            single input a list of them, best first, and for a list of inputs a list of such lists.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        count = len(self.labels) if top_k is None else check_count(top_k, "top_k")
        single = not isinstance(texts, list)
        logits = self.logits([texts] if single else texts, batch_size, on_overflow)
        ranked = [
            [{"label": self.labels[i], "score": float(row[i])} for i in top(row, count).tolist()]
            for row in self._scores(logits, function_to_apply)
        ]
        if top_k == 1:
            best = [row[0] for row in ranked]
            return best[0] if isinstance(texts, dict) else best
        return ranked[0] if single else ranked

    def logits(self, texts: list[Any], batch_size: int = 32, on_overflow: str = "truncate") -> np.ndarray:
        """Return the classifier's raw scores: a list of N inputs -> (N, C) float32."""
        batch_size = check_batch_size(batch_size)
        encodings, truncated = self._tokenizer.encode([_text(text) for text in texts])
        check_overflow(truncated, self._tokenizer.max_length, on_overflow)
        logits = np.empty((len(encodings), len(self.labels)), np.float32)
        for indices, batch, hidden in hidden_states(self._model, encodings, batch_size):
            logits[indices] = self._head(hidden, batch)
        return logits

    def _scores(self, logits: np.ndarray, function: str | None) -> np.ndarray:
        if function is None:
            problem_type = self._model.config.problem_type
            one_each = problem_type == "multi_label_classification" or logits.shape[1] == 1
            function = "none" if problem_type == "regression" else "sigmoid" if one_each else "softmax"
        check_choice(function, "function_to_apply", tuple(FUNCTIONS))
        return FUNCTIONS[function](logits)


def _text(text: Any) -> Text:
    if not isinstance(text, dict):
        return text
    if not set(text) <= {"text", "text_pair"} or "text" not in text:
        raise InputError(f"texts: expected dicts with text and perhaps text_pair, got the keys {shown(list(text))}")
    pair: Any = text.get("text_pair")
    alone = pair is None or (isinstance(pair, str) and not pair)
    return text["text"] if alone else (text["text"], pair)
