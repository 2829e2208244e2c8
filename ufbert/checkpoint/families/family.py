"""What there is to know of an architecture's checkpoints, and what several architectures read in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from ...activations import HUGGING_FACE
from ...config import ModelConfig
from ..options import Options

__all__ = ["COLBERT", "Family", "Spelling", "base_of_rotations", "labels", "read_keys", "twice", "written"]

COLBERT = "HF_ColBERT"
"""Class of Stanford's ColBERT, of any architecture: an encoder with a linear layer on each token, ``linear``."""
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
LEFTOVERS = r"(loss|loss_fct|loss_fn|loss_function|criterion)\..*|class_weights"
"""Tensors of loss functions, which training with class weights leaves behind."""


@dataclass(frozen=True, eq=False)
class Spelling:
    """The names that one checkpoint's tensors have, by our keys."""

    stems: Mapping[str, str]

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key.partition(".")[0] in self.stems

    def __call__(self, key: str, layer: int | str = 0) -> str:
        """Spell a key with its suffix, if it has one: "fff_nodes", "query.weight"."""
        stem, dot, suffix = key.partition(".")
        return self.stems[stem].format(layer=layer) + dot + suffix

    def parameter(self, name: str) -> str:
        """Spell a parameter with its layer, if it has one: "pooler.bias", "layers.3.query.weight"."""
        if not name.startswith("layers."):
            return self(name)
        _, layer, key = name.split(".", 2)
        return self(key, layer)


@dataclass(frozen=True, eq=False)
class Family:
    """How one architecture writes its checkpoints.

    Attributes
    ----------
    tasks : mapping of str to str
        Its classes, as ``architectures`` of ``config.json`` names them, to `ModelConfig.task`.
    read : callable
        Makes a `ModelConfig` of ``config.json`` and a task.
    prefix : str
        What stands before the encoder's names where the checkpoint has a head.
    encoder, head : mapping of str to str
        Our keys to the names of tensors. A value is the stem before ``.weight`` and ``.bias``, or the whole name of a
        tensor that is neither; ``{layer}`` is the layer's number.
    ignored : tuple of str
        Patterns of tensors that may be there without being used, behind the prefix or not.
    tokenizer : str
        Class of its tokenizer in transformers, where the folder names none.
    encoders : tuple of str
        Further classes of the architecture's own library; only their encoders can be used.
    write : callable, optional
        The opposite of `read`; None where this package writes no such checkpoints.
    """

    tasks: Mapping[str, str]
    read: Callable[[Options, str], ModelConfig]
    prefix: str
    encoder: Mapping[str, str]
    head: Mapping[str, str]
    ignored: tuple[str, ...] = ()
    tokenizer: str = "BertTokenizer"
    encoders: tuple[str, ...] = ()
    write: Callable[[ModelConfig], dict[str, Any]] | None = None

    @property
    def dense_key(self) -> str:
        """Key of the dense layer under a text classifier: of its own, or BERT's pooler."""
        return "classifier_dense" if "classifier_dense" in self.head else "pooler"

    def spelling(self, tensors: Container[str]) -> Spelling:
        """Give the names in a checkpoint with these tensors: with the prefix where the encoder's have it."""
        return self.names(with_head=self.encoder["word_embeddings"] + ".weight" not in tensors)

    def names(self, with_head: bool) -> Spelling:
        """Give the names in a checkpoint with a head or without."""
        prefix = self.prefix if with_head else ""
        return Spelling({key: prefix + name for key, name in self.encoder.items()} | dict(self.head))

    def may_be_unused(self, with_other_heads: bool) -> str:
        """Give a pattern of tensors that may be there without being used."""
        patterns = [f"({re.escape(self.prefix)})?({pattern})" for pattern in self.ignored] + [LEFTOVERS]
        if with_other_heads:
            patterns += [*sorted({name.split(".")[0] + r"\..*" for name in self.head.values()}), r"linear\.weight"]
        return "|".join(patterns)


def read_keys(top: Options, keys: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Read sizes and the like: fields of `ModelConfig`, each from its key in the file and with its default."""
    return {field: top.get(key, default) for field, (key, default) in keys.items()}


def twice(width: object) -> object:
    """Width of values and gates together; anything but a number is refused by its own name."""
    return 2 * width if isinstance(width, int) else width


def base_of_rotations(options: Options, key: str, default: float) -> float:
    """Read the base of the wavelengths of rotary positions."""
    value = options.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 < value < 1e12:
        raise options.error(key, "a number above 1", value)
    return float(value)


def labels(top: Options) -> dict[str, Any]:
    """Read what classifiers say of their classes."""
    given = top.section("id2label").values
    numbers = {str(index): index for index in range(len(given))}
    fits = all(isinstance(label, (str, int, float)) for label in given.values())
    if set(given) != set(numbers) or not fits:
        raise top.error("id2label", "the numbers from 0 without gaps, each with a name", given)
    return {
        "num_labels": len(given) or top.get("num_labels", 2),
        "id2label": {index: str(given[key]) for key, index in numbers.items()},
        "problem_type": top.choice("problem_type", (None, *PROBLEM_TYPES), None),
    }


def written(config: ModelConfig, family: Family, keys: Mapping[str, tuple[str, Any]], act: str) -> dict[str, Any]:
    """Write what `read_keys` and `labels` read, the class of the model's task and, as `act`, its activation."""
    architecture = next(name for name, task in family.tasks.items() if task == config.task)
    settings = {"architectures": [architecture]} | {key: getattr(config, field) for field, (key, _) in keys.items()}
    settings[act] = next(name for name, own in HUGGING_FACE.items() if own == config.hidden_act)
    if config.id2label:
        settings["id2label"] = {str(index): label for index, label in config.id2label.items()}
        settings["label2id"] = {label: index for index, label in config.id2label.items()}
    if config.problem_type:
        settings["problem_type"] = config.problem_type
    return settings
