"""The models of a service, each under its name, and the lanes of the queue that their texts take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..batch import Batch
from ..checkpoint.folder import ModelFolder
from ..checkpoint.names import default_folder
from ..checkpoint.sentence import SentenceModel, load_sentence_model
from ..errors import CheckpointError, InputError
from ..heads import Dense, SequenceClassifier
from ..tasks import FillMask, QuestionAnswerer, TextClassifier, TokenClassifier
from ..text_model import Run, TextModel
from .queue import Lane, Rows
from .refusal import invalid

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["Classifier", "Embedder", "Queued", "Served", "TaskModel", "load_models"]

TASKS: dict[str, tuple[str, Callable[[Path, str], FillMask | QuestionAnswerer | TokenClassifier]]] = {
    "masked-lm": ("fill-mask", FillMask),
    "token-classification": ("token-classification", TokenClassifier),
    "question-answering": ("question-answering", QuestionAnswerer),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Served:
    """A loaded model.

    Attributes
    ----------
    name : str
        By which requests choose it.
    kind : str
        "embedding", "classifier", "reranker" (a classifier with one label), "fill-mask", "token-classification" or
        "question-answering".
    folder : Path
    dtype : str
    texts : TextModel
        Without a prompt.
    """

    about: ClassVar[str] = "texts"

    name: str
    kind: str
    folder: Path
    dtype: str
    texts: TextModel

    @property
    def has_trees(self) -> bool:
        """Whether its feed-forward layers are FFF."""
        return self.texts.model.config.feed_forward == "fff"

    @cached_property
    def hidden(self) -> Lane:
        """The lane whose results are hidden states (S, H)."""
        return Lane(self.texts, _hidden_states)

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights, and so of what embeddings may be compared."""
        return ModelFolder(self.folder).transformer().sha256()

    @cached_property
    def size(self) -> int:
        """Bytes of the weights on disk."""
        return sum(file.stat().st_size for file in ModelFolder(self.folder).transformer().weight_files())

    @property
    def changed(self) -> int:
        """When its folder was written, in seconds since 1970."""
        return int((self.folder / "config.json").stat().st_mtime)

    def variant(self, prompt: str = "", left: bool | None = None) -> TextModel:
        """Return the model with a prompt, and another side at which long texts are cut."""
        tokenizer = self.texts.tokenizer
        if left is not None and left != tokenizer.truncate_left:
            tokenizer = replace(tokenizer, truncate_left=left)
        return replace(self.texts, prompt=prompt, tokenizer=tokenizer)


@dataclass(frozen=True, eq=False, kw_only=True)
class Embedder(Served):
    """A model whose results are embeddings."""

    about: ClassVar[str] = "embedding"

    sentence: SentenceModel
    _lanes: dict[int, Lane] = field(init=False, default_factory=dict)

    @cached_property
    def prompts(self) -> dict[str, str]:
        """The model's prompts by name."""
        return {"query": "", "document": ""} | self.sentence.settings.prompts

    @property
    def dimension(self) -> int:
        """Width of an embedding where a request does not say."""
        return min(self.sentence.settings.truncate_dim or self.sentence.dimension, self.sentence.dimension)

    def prompt(self, name: str | None) -> str:
        """Return the prompt of a name, the model's default one for None."""
        name = self.sentence.settings.default_prompt_name if name is None else name
        if name is None:
            return ""
        if name not in self.prompts:
            known = ", ".join(f'"{known}"' for known in sorted(self.prompts))
            raise invalid(
                f"prompt_name: `{name:.80}` was not found in the Sentence Transformers prompts. "
                f"Available prompts: [{known}]"
            )
        return self.prompts[name]

    def lane(self, prompt: str) -> Lane:
        """Return the lane of texts that begin with a prompt, which pooling may leave out."""
        skipped = 0
        if prompt and not self.sentence.pooling.include_prompt:
            encodings, _ = self.variant(prompt).tokenize([""])
            skipped = len(encodings[0]) - 1  # without [SEP]
        if skipped not in self._lanes:
            self._lanes[skipped] = Lane(self.texts, partial(self._embeddings, skipped))
        return self._lanes[skipped]

    def _embeddings(self, skipped: int, run: Run) -> Iterable[tuple[int, Rows]]:
        if any(isinstance(module, Dense) for module in self.sentence.modules):
            return _alone(run, partial(self.sentence.embed, prompt_tokens=skipped))
        return zip(run.indices, self.sentence.embed(run.hidden, run.batch, skipped), strict=True)


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier(Served):
    """A model whose results are scores of classes."""

    about: ClassVar[str] = "classification"

    task: TextClassifier

    @cached_property
    def logits(self) -> Lane:
        """The lane whose results are logits (C,)."""
        head = self.texts.model.head
        assert isinstance(head, SequenceClassifier)
        return Lane(self.texts, lambda run: _alone(run, head))


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskModel(Served):
    """A model whose task makes its results of hidden states."""

    about: ClassVar[str] = "fill-mask, token classification or question answering"

    task: FillMask | QuestionAnswerer | TokenClassifier

    def bound(self, wait: Callable[[Sequence[Encoding]], list[Rows]]) -> FillMask | QuestionAnswerer | TokenClassifier:
        """Return the task with `wait` in the place of the encoder."""
        task = copy(self.task)
        task._texts = Queued(**vars(self.texts), wait=wait)
        return task


@dataclass(frozen=True, kw_only=True)
class Queued(TextModel):
    """A model whose forward passes are elsewhere: `wait` gives the hidden states (S, H) of each text."""

    wait: Callable[[Sequence[Encoding]], list[Rows]]

    def run(self, encodings: Sequence[Encoding], batch_size: int | None = None) -> Iterator[Run]:
        """Wait for hidden states; a run has one text."""
        for index, hidden in enumerate(self.wait(encodings)):
            yield Run([index], self.batch([encodings[index]]), hidden)


def load_models(specifications: Sequence[str], dtype: str, pooling: str | None = None) -> dict[str, Served]:
    """Load models, each given as ``NAME=FOLDER`` or as a folder or a bundled model; none for the bundled default.

    Raises
    ------
    CheckpointError
        If a folder is not usable.
    InputError
        If two models have one name.
    """
    models: dict[str, Served] = {}
    for specification in specifications or [""]:
        name, separator, folder = specification.rpartition("=")
        root = ModelFolder(folder or default_folder())
        if separator and not name:
            raise InputError(f"--model: expected NAME=FOLDER, got {specification!r}; give the model a name")
        name = name or (folder if root.remote else root.path.resolve().name)
        if name in models:
            raise InputError(f"--model: expected names that differ, got {name} twice; write NAME=FOLDER")
        models[name] = _load(name, root.complete(), dtype, pooling)
    return models


def _load(name: str, root: ModelFolder, dtype: str, pooling: str | None) -> Served:
    path, task = root.transformer().path, "base"
    if [module.kind for module in root.modules()] == ["Transformer"]:  # perhaps a CrossEncoder's modules.json
        task = root.transformer().config().task
    if task == "base":
        return _load_embedder(name, root, dtype, pooling)
    if task == "sequence-classification":
        classifier = TextClassifier(path, dtype)
        kind = "reranker" if len(classifier.labels) == 1 else "classifier"
        texts = classifier._texts
        found = texts.model.precision.dtype
        return Classifier(name=name, kind=kind, folder=path, dtype=found, texts=texts, task=classifier)
    kind, make = TASKS[task]
    made = make(path, dtype)
    found = made._texts.model.precision.dtype
    return TaskModel(name=name, kind=kind, folder=path, dtype=found, texts=made._texts, task=made)


def _load_embedder(name: str, root: ModelFolder, dtype: str, pooling: str | None) -> Embedder:
    try:
        sentence = load_sentence_model(root, None if root.pooling() else pooling, dtype)
    except CheckpointError as error:
        raise CheckpointError(f"--model {name}: {error} (ufbert serve: --pooling)") from None
    texts = replace(sentence.texts, prompt="")
    found = texts.model.precision.dtype
    return Embedder(name=name, kind="embedding", folder=root.path, dtype=found, texts=texts, sentence=sentence)


def _alone(run: Run, function: Callable[[Rows, Batch], Rows]) -> Iterator[tuple[int, Rows]]:
    """Call a head for each text alone, for the bits of what BLAS multiplies depend on how many rows there are."""
    for position, (index, hidden) in enumerate(run.split(run.hidden)):
        yield index, function(hidden, run.batch.select(position, position + 1))[0]


def _hidden_states(run: Run) -> Iterator[tuple[int, Rows]]:
    for index, rows in run.split(run.hidden):
        yield index, np.array(rows)  # of its own, so that one text does not keep the whole batch
