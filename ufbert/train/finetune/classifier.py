"""BERT with a text classifier on it, as a module for fine-tuning. Needs the extra ``train``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint.folder import WEIGHTS, ModelFolder
from ...checkpoint.tensors import Tensors, encoded, write_tensors
from ...errors import InputError
from ...glue import Task
from ..bert import Bert
from ..device import mixed_precision

__all__ = ["Classifier"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
POOLER = ("pooler.dense", "bert.pooler.dense")


class Classifier(nn.Module):
    """An encoder, BERT's pooler and a linear layer: Hugging Face's ``BertForSequenceClassification``.

    The pooler is dense and tanh on the first token, because that is what such a checkpoint can say; a sentence
    encoder's mean pooling has no place in it.

    Parameters
    ----------
    folder : str or path
        Model folder of the encoder. Its pooler is taken over where it has one.
    num_labels : int
        1 for regression.
    dropout : float
        On the pooler's output.
    top_layers : int, optional
        Train only so many of the last layers, with the head; None for everything.
    """

    def __init__(
        self, folder: str | os.PathLike[str], num_labels: int, dropout: float = 0.1, top_layers: int | None = None
    ) -> None:
        super().__init__()
        self.source, self.name = ModelFolder(folder).transformer(), Path(folder).resolve().name
        self.bert = Bert.from_folder(folder)
        hidden = self.bert.config.hidden_size
        self.pooler = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, num_labels)
        for linear in (self.pooler, self.classifier):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
        self._copy_pooler()
        self.top_layers = top_layers
        if top_layers is not None:
            self._freeze(top_layers)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor) -> Tensor:
        """(N, S) -> logits (N, C)."""
        with mixed_precision(self.training, self.bert.device):
            first = self.bert(input_ids, attention_mask, token_type_ids)[:, 0].float()  # (N, H)
        return self.classifier(self.dropout(torch.tanh(self.pooler(first))))

    def save(self, folder: Path, task: Task, labels: list[str], dtype: str = "float32") -> None:
        """Write a plain classifier folder.

        With `top_layers` it has only what was trained, and names the encoder's folder, which must stand beside it, as
        its ``ufbert_base_model``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        tensors = {"bert." + name: array for name, array in self.bert.tensors().items()}
        if self.top_layers is not None:
            tensors = {name: array for name, array in tensors.items() if name in trained}
        for stem, linear in (("bert.pooler.dense", self.pooler), ("classifier", self.classifier)):
            tensors[stem + ".weight"] = linear.weight.detach().numpy()
            tensors[stem + ".bias"] = linear.bias.detach().numpy()
        write_tensors(folder / WEIGHTS, {name: encoded(name, array, dtype) for name, array in tensors.items()})
        config = self._config(task, labels)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in TOKENIZER_FILES if self.top_layers is None else ():
            if self.source.has(name):
                shutil.copyfile(self.source.path / name, folder / name)

    def _config(self, task: Task, labels: list[str]) -> dict[str, Any]:
        config = self.source.read_json("config.json") | {
            "architectures": ["BertForSequenceClassification"],
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
            "problem_type": "regression" if task.regression else "single_label_classification",
            "finetuning_task": task.name,
        }
        for stale in ("num_labels", "_name_or_path"):  # the first follows from id2label
            config.pop(stale, None)
        if self.top_layers is not None:
            config["ufbert_base_model"] = self.name
        return config

    def _copy_pooler(self) -> None:
        tensors, hidden = Tensors(self.source.weight_files()), self.bert.config.hidden_size
        for stem in POOLER:
            if stem + ".weight" in tensors:
                with torch.no_grad():
                    self.pooler.weight.copy_(torch.tensor(tensors.take(stem + ".weight", (hidden, hidden))))
                    self.pooler.bias.copy_(torch.tensor(tensors.take(stem + ".bias", (hidden,))))

    def _freeze(self, top_layers: int) -> None:
        layers = self.bert.layers
        if not 0 <= top_layers <= len(layers):
            raise InputError(f"top_layers: expected 0 to {len(layers)}, the model's layers, got {top_layers}")
        self.bert.requires_grad_(False)
        for layer in layers[len(layers) - top_layers :]:
            layer.requires_grad_(True)
