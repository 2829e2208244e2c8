"""Scores of text pairs, and documents ranked for a query."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..activations import TABLE, TORCH, softmax
from ..checkpoint.files import SENTENCE_SETTINGS
from ..checkpoint.folder import TRANSFORMER_SETTINGS, ModelFolder
from ..checkpoint.options import Options
from ..errors import CheckpointError, InputError, shown
from ..text_model import ON_OVERFLOW, WINDOW, each_text
from .habits import CALLING, LOADING, Evaluations, as_tensor, check_device, check_unused, first_given
from .load import load_texts, open_model
from .text_classifier import class_logits

__all__ = ["CrossEncoder", "Ranked"]

MISSING: Any = object()
Pair = tuple[str, str] | Sequence[str]
ActivationFn = str | Callable[[NDArray[np.float32]], NDArray[np.float32]]


class _Scored(TypedDict):
    corpus_id: int
    score: float


class Ranked(_Scored, total=False):
    """A document: its number among those given, its score, and perhaps its text."""

    text: str


class CrossEncoder:
    """Scores pairs of texts, such as a query and a document, as sentence-transformers' ``CrossEncoder`` does.

    Parameters
    ----------
    folder : str or path
        A folder with a sequence classifier and its tokenizer, or the name of a model of the hub,
        "organisation/name[@revision]".
    max_length : int, optional
        Tokens of a pair, special tokens included; by default what the folder says.
    activation_fn : str or callable, optional
        What makes scores of the logits (N, C): a key of `ufbert.activations.TABLE` or a function; by default what the
        folder names, else "sigmoid" for a model with one label and "identity" for others.
    on_overflow : {"truncate", "warn", "error"}
        What to do with pairs that are longer.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications; see `ufbert.load`.
    revision, token, cache_folder, local_files_only : optional
        Of a model of the hub; see `ufbert.download`.
    device, others : optional
        Of sentence-transformers' class: refused with the reason, unless they are its defaults.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    InputError
        If another argument does not fit.

    Examples
    --------
    >>> import ufbert
    >>> reranker = ufbert.CrossEncoder("path/to/ms-marco-MiniLM-L6-v2")  # doctest: +SKIP
    >>> reranker.rank("How do plants make food?", documents, top_k=3)  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        max_length: int | None = None,
        activation_fn: ActivationFn | None = None,
        on_overflow: str = "truncate",
        dtype: str = "float32",
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_folder: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        device: object = None,
        **others: object,
    ) -> None:
        check_device(device)
        check_unused("CrossEncoder", others, LOADING)
        self.on_overflow = checks.choice(on_overflow, "on_overflow", ON_OVERFLOW)
        self.model_card_data = Evaluations()
        root = open_model(
            folder, revision=revision, token=token, cache_folder=cache_folder, local_files_only=local_files_only
        )
        transformer = root.transformer()
        texts = load_texts(transformer, "sequence-classification", dtype)
        config = texts.model.config
        least = texts.tokenizer.min_length(pair=True)
        own_length = _max_length(transformer, least, texts.max_length, config.max_length)
        # What the tokenizer says is a default only.
        texts = replace(texts, tokenizer=replace(texts.tokenizer, max_length=config.max_length))
        self._texts = texts.with_max_length(own_length if max_length is None else max_length)
        self.num_labels = config.num_labels
        own = _activation(root) or ("sigmoid" if self.num_labels == 1 else "identity")
        self.activation_fn: ActivationFn = own if activation_fn is None else activation_fn
        _function(self.activation_fn)  # refuses a name that is none

    @property
    def max_length(self) -> int:
        """Tokens a pair may have, special tokens included; the longer text is cut first."""
        return self._texts.max_length

    def predict(
        self,
        sentences: Pair | Iterable[Pair] = MISSING,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationFn | None = None,
        apply_softmax: bool = False,
        *,
        inputs: Pair | Iterable[Pair] = MISSING,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object = None,
        **others: object,
    ) -> NDArray[np.float32]:
        """Score pairs.

        Parameters
        ----------
        sentences, inputs : (str, str), or iterable of those
            Two names of one argument.
        batch_size : int
            Pairs in one forward pass at most.
        show_progress_bar : bool, optional
            Show progress on stderr; None for no.
        activation_fn : str or callable, optional
            Instead of the model's own.
        apply_softmax : bool
            Then apply a softmax over the labels, if there are several.
        convert_to_numpy, convert_to_tensor : bool
            Return one array, or one tensor of PyTorch; with neither a list of scores.
        device, others : optional
            Of sentence-transformers' method: refused with the reason, unless they are its defaults.

        Returns
        -------
        (N,) float32 array, or (N, C) for C > 1 labels
            Of one pair its score alone.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        sentences = first_given("predict", ("sentences", "inputs"), (sentences, inputs), MISSING)
        check_device(device)
        check_unused("predict", others, CALLING)
        if isinstance(sentences, np.ndarray):
            sentences = sentences.tolist()
        single = isinstance(sentences, (tuple, list)) and len(sentences) > 0 and isinstance(sentences[0], str)
        pairs: Iterable[object] = [sentences] if single else sentences
        if show_progress_bar:
            from tqdm import tqdm

            pairs = tqdm(pairs, unit="pair", desc="score")
        scores = list(self._scores(pairs, batch_size, activation_fn, apply_softmax, WINDOW))
        shape = (0,) if self.num_labels == 1 else (0, self.num_labels)
        joined = np.concatenate([np.zeros(shape, np.float32), *scores])
        result = joined[0] if single else joined
        if convert_to_tensor:
            return as_tensor(np.asarray(result))  # type: ignore[no-any-return]
        return result if convert_to_numpy or single else list(result)  # type: ignore[return-value]

    def stream(
        self,
        sentences: Iterable[Pair],
        batch_size: int = 32,
        activation_fn: ActivationFn | None = None,
        apply_softmax: bool = False,
    ) -> Iterator[NDArray[np.float32]]:
        """Score any number of pairs, holding `batch_size` of them at a time.

        Parameters are those of `predict`; memory does not grow with the number of pairs.

        Yields
        ------
        float32, or (C,) float32 array
            The score of each pair, in order.
        """
        windows = self._scores(sentences, batch_size, activation_fn, apply_softmax, 0)
        return (row for scores in windows for row in scores)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        return_documents: bool = False,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: ActivationFn | None = None,
    ) -> list[Ranked]:
        """Rank documents by their scores for a query.

        Parameters
        ----------
        query : str
        documents : iterable of str
        top_k : int, optional
            How many documents to give; None for all.
        return_documents : bool
            Give their texts too.
        batch_size, show_progress_bar, activation_fn
            As in `predict`.

        Returns
        -------
        list of ``{corpus_id, score}``, with `return_documents` ``{corpus_id, score, text}``
            Best first; ``corpus_id`` counts the documents from 0.

        Raises
        ------
        InputError
            If an argument does not fit, or the model has several labels.
        """
        if self.num_labels != 1:
            raise InputError(f"rank: expected a model with one label, got {self.num_labels}; use predict")
        if not isinstance(query, str):
            raise InputError(f"query: expected str, got {type(query).__name__}: {shown(query)}")
        count = None if top_k is None else checks.integer(top_k, "top_k", 1)
        texts = each_text(documents, "documents")
        if return_documents:
            texts = iter(kept := list(texts))
        pairs = ((query, text) for text in texts)
        scores = self.predict(pairs, batch_size, show_progress_bar, activation_fn)  # type: ignore[arg-type]
        ranked: list[Ranked] = [{"corpus_id": index, "score": score} for index, score in enumerate(scores.tolist())]
        ranked = sorted(ranked, key=lambda document: -document["score"])[:count]
        if return_documents:
            ranked = [{**document, "text": str(kept[document["corpus_id"]])} for document in ranked]
        return ranked

    def _scores(
        self,
        sentences: Iterable[object],
        batch_size: int,
        activation_fn: ActivationFn | None,
        apply_softmax: bool,
        window: int,
    ) -> Iterator[NDArray[np.float32]]:
        """Check the arguments; return the scores (N,) or (N, C) of windows of at least `window` pairs."""
        function = _function(self.activation_fn if activation_fn is None else activation_fn)
        pairs = _checked(each_text(sentences, "sentences"))

        def scored(logits: NDArray[np.float32]) -> NDArray[np.float32]:
            scores = function(logits)
            if self.num_labels == 1:
                return scores[:, 0]
            return softmax(scores) if apply_softmax else scores

        return map(scored, class_logits(self._texts, pairs, batch_size, self.on_overflow, window))


def _checked(sentences: Iterator[object]) -> Iterator[object]:
    """Refuse what is no pair: a classifier takes one text too."""
    for number, pair in enumerate(sentences):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InputError(f"sentences: expected pairs of str, got {shown(pair)} as number {number}")
        yield pair


def _function(activation_fn: ActivationFn) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    if callable(activation_fn):
        return activation_fn
    return TABLE[checks.choice(activation_fn, "activation_fn", TABLE)]


def _max_length(root: ModelFolder, least: int, default: int, longest: int) -> int:
    """Tokens of a pair, `least` or more, as the folder's settings say, up to the model's `longest`; else `default`."""
    name = next((name for name in TRANSFORMER_SETTINGS if root.has(name)), TRANSFORMER_SETTINGS[0])
    settings = Options(root.read_optional_json(name), root.path / name)
    settings.refuse_unless("transformer_task", ("sequence-classification", None), "sequence-classification")
    limit = settings.integer("max_seq_length", least)
    found = default if limit is None else min(limit, longest)
    if found < least:
        raise CheckpointError(f"{root.path}: expected room for the {least} tokens of the shortest pair, found {found}")
    return found


def _activation(root: ModelFolder) -> str | None:
    """Name of the activation that the folder's files say, None if they say nothing."""
    settings, config = _settings(root), root.transformer()
    options = Options(config.read_json("config.json"), config.path / "config.json")
    nested = options.section("sentence_transformers")
    places = ((settings, "activation_fn"), (nested, "activation_fn"), (options, "sbert_ce_default_activation_function"))
    for place, key in places:
        found = place.get(key, None)
        if found is not None:
            name = found.rsplit(".", 1)[-1] if isinstance(found, str) and found.startswith("torch.") else ""
            if name not in TORCH:
                raise place.error(key, f"a class of torch.nn, one of {', '.join(TORCH)}", found)
            return TORCH[name]
    return None


def _settings(root: ModelFolder) -> Options:
    """Read sentence-transformers' settings, and refuse what would change scores in a way that is not known here."""
    settings = Options(root.read_optional_json(SENTENCE_SETTINGS), root.path / SENTENCE_SETTINGS)
    default = settings.get("default_prompt_name", None)
    if default is not None and settings.section("prompts").get(str(default), "") != "":
        raise settings.error("default_prompt_name", "no prompt for pairs", default)
    others = [module.kind for module in root.modules()[1:]]
    if others:
        raise CheckpointError(
            f"{root.path / 'modules.json'}: expected a Transformer alone for a cross-encoder, found {shown(others)} "
            "too; ufbert supports no others"
        )
    return settings
