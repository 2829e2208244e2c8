"""BERT with a text classifier on it, as a module for fine-tuning. Needs the extra ``train``."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoint.families import family_of, rewritten
from ...checkpoint.folder import WEIGHTS, ModelFolder
from ...checkpoint.tensors import Tensors, encoded, write_tensors
from ...errors import InputError
from ...glue import Task
from ..bert import ACTIVATIONS, Bert
from ..device import mixed_precision

__all__ = ["Classifier"]


class Classifier(nn.Module):
    """An encoder, its family's pooler and a linear layer: ``BertForSequenceClassification`` of transformers, say.

    The pooler is dense and an activation on the first token, because that is what such a checkpoint can say; a sentence
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
        files = ModelFolder(folder).complete()
        self.source, self.name = files.transformer(), files.path.resolve().name
        self.bert = Bert.from_folder(folder)
        config = self.bert.config
        hidden, self.family = config.hidden_size, family_of(config.family)
        self.activation = ACTIVATIONS[
            "tanh" if config.classification_head is None else config.classification_head.activation
        ]
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
        return self.classifier(self.dropout(self.activation(self.pooler(first))))

    def save(self, folder: Path, task: Task, labels: list[str], dtype: str = "float32") -> None:
        """Write a plain classifier folder.

        With `top_layers` it has only what was trained, and names the encoder's folder, which must stand beside it, as
        its ``ufbert_base_model``.
        """
        folder.mkdir(parents=True, exist_ok=True)
        spelling = self.family.names(with_head=True)
        tensors = self.bert.tensors(with_head=True, trained_only=self.top_layers is not None)
        for key, linear in ((self.family.dense_key, self.pooler), ("classifier", self.classifier)):
            tensors[spelling(key + ".weight")] = linear.weight.detach().numpy()
            tensors[spelling(key + ".bias")] = linear.bias.detach().numpy()
        write_tensors(folder / WEIGHTS, {name: encoded(name, array, dtype) for name, array in tensors.items()})
        config = self._config(task, labels)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if self.top_layers is None:
            self.source.tokenizer_folder().copy_tokenizer_to(folder)

    def _config(self, task: Task, labels: list[str]) -> dict[str, Any]:
        config = replace(
            self.bert.config,
            task="sequence-classification",
            num_labels=len(labels),
            id2label=dict(enumerate(labels)),
            problem_type="regression" if task.regression else "single_label_classification",
        )
        settings = rewritten(self.source.read_json("config.json"), config) | {"finetuning_task": task.name}
        if self.top_layers is not None:
            settings["ufbert_base_model"] = self.name
        return settings

    def _copy_pooler(self) -> None:
        tensors, hidden = Tensors(self.source.weight_files()), self.bert.config.hidden_size
        weight, bias = (self.family.spelling(tensors)(f"{self.family.dense_key}.{part}") for part in ("weight", "bias"))
        if weight in tensors:
            with torch.no_grad():
                self.pooler.weight.copy_(torch.tensor(tensors.take(weight, (hidden, hidden))))
                self.pooler.bias.copy_(torch.tensor(tensors.take(bias, (hidden,))))

    def _freeze(self, top_layers: int) -> None:
        layers = self.bert.layers
        if not 0 <= top_layers <= len(layers):
            raise InputError(f"top_layers: expected 0 to {len(layers)}, the model's layers, got {top_layers}")
        self.bert.requires_grad_(False)
        for layer in layers[len(layers) - top_layers :]:
            layer.requires_grad_(True)
