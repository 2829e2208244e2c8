"""The dense model, with what each of its layers reads and gives: run by ufbert on the CPU, by PyTorch elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ... import checks
from ...checkpoint.families import family_of
from ...checkpoint.folder import ModelFolder
from ...checkpoint.sentence import load_sentence_model
from ...errors import CheckpointError
from ..bert import TRAINED, Bert
from ..device import CPU
from .corpus import TextBatch

__all__ = ["Activations", "Teacher"]

PART = 4_096  # tokens that go through a feed-forward layer of ufbert at once
TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Activations:
    """What flows through the teacher, of T tokens.

    Attributes
    ----------
    inputs : list of (T, H) float32 tensors
        What each layer's feed-forward layer reads: attention, residual sum and norm are done. Empty if not asked for.
    outputs : list of (T, H) float32 tensors
        What each layer gives: after residual sum and norm.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]


class Teacher:
    """A dense BERT with its tokenizer.

    Parameters
    ----------
    folder : str or path
        A sentence-transformers folder; a plain BERT folder is pooled by its mean.
    dtype : {"auto", "float32", "bfloat16", "int8", "float16"}
        How precisely it runs: int8 on the CPU only, float16 on other devices only. "auto" is float32 on the CPU,
        float16 elsewhere.
    device : torch.device
    plain : bool
        Run in plain PyTorch on the CPU too.

    Raises
    ------
    CheckpointError
        If the folder is not usable, or is no BERT with dense layers.
    """

    def __init__(self, folder: str, dtype: str = "auto", device: torch.device = CPU, plain: bool = False) -> None:
        on_kernels = device.type == "cpu" and not plain
        if dtype == "auto":
            dtype = "float32" if device.type == "cpu" else "float16"
        choices = ("float32", "bfloat16", "int8") if on_kernels else tuple(TYPES)
        self.dtype, self.device = checks.choice(dtype, "teacher_dtype", choices), device
        files = ModelFolder(folder)
        pooling = None if files.pooling() else "mean"
        loaded = load_sentence_model(files, pooling, self.dtype if on_kernels else "float32")
        self.texts = loaded.texts
        self.tokenizer, self.config = self.texts.tokenizer, self.texts.model.config
        self.pooling = loaded.pooling.modes[0]
        if loaded.pooling.modes not in (("cls",), ("mean",)):
            raise CheckpointError(
                f"{folder}: expected a teacher with cls or mean pooling, found {' and '.join(loaded.pooling.modes)}; "
                "embeddings pooled otherwise cannot be distilled: choose another model"
            )
        if family_of(self.config.family).write is None or self.config.feed_forward != "dense":
            raise CheckpointError(
                f"{folder}: expected a {TRAINED} with dense feed-forward layers as a teacher, found "
                f"{self.config.family} with {self.config.feed_forward} ones; choose such a model"
            )
        self._encoder = self.texts.model.encoder
        self.module = None if on_kernels else Bert.from_folder(folder).requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, batch: TextBatch, inputs: bool = True) -> Activations:
        """Run all layers and keep what flows between them."""
        if self.module is None:
            traces = list(self._encoder.trace(batch.ragged, inputs))
            reads = [torch.from_numpy(trace.feed_forward_input) for trace in traces if inputs]
            return Activations(reads, [torch.from_numpy(trace.output) for trace in traces])
        reads, gives = [], []
        with self._precision():
            x = self.module.embed(batch.input_ids)
            mask = self.module.mask(batch.attention_mask, x.shape[1])
            for layer in self.module.layers:
                x = layer.attend(x, mask)
                if inputs:
                    reads.append(batch.unpadded(x).float())
                x = layer.norm2(layer.feed_forward(x) + x)
                gives.append(batch.unpadded(x).float())
        return Activations(reads, gives)

    @torch.no_grad()
    def feed_forward(self, index: int, x: Tensor) -> Tensor:
        """Run the feed-forward layer of an encoder layer alone: (T, H) -> (T, H)."""
        if self.module is not None:
            with self._precision():
                return self.module.layers[index].feed_forward(x).float()
        layer, zero = self._encoder.layers[index].feed_forward, np.zeros((PART, x.shape[1]), np.float32)
        return torch.cat([torch.from_numpy(layer(part.numpy(), zero[: len(part)])) for part in x.split(PART)])

    def _precision(self) -> torch.autocast:
        low = self.dtype != "float32"
        return torch.autocast(self.device.type, TYPES[self.dtype] if low else None, enabled=low)
