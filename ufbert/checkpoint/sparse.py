"""A masked LM as an encoder of sparse embeddings (SPLADE): plain, or in a folder of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..activations import IN_KERNELS
from ..batch import Batch, split_by_budget
from ..errors import CheckpointError, shown
from ..heads import MaskedLMHead
from ..layers import Linear
from ..text_model import TextModel
from .files import SENTENCE_SETTINGS
from .folder import ModelFolder
from .options import Options
from .pack import load_model
from .sentence import SentenceSettings, call_settings, text_model

__all__ = ["SparseModel", "load_sparse_model"]

POOLINGS = ("max", "sum")
ACTIVATIONS = ("relu", "log1p_relu")
TRANSFORMER: dict[str, object] = {
    "transformer_task": "fill-mask",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
}
ROWS = 256  # tokens that are scored together: memory holds their scores of the whole vocabulary


@dataclass(frozen=True)
class SparseModel:
    """A masked LM with its tokenizer, and what makes weights of tokens of its scores. arXiv 2107.05720."""

    texts: TextModel
    pooling: str
    activation: str
    settings: SentenceSettings
    max_active_dims: int | None
    head: MaskedLMHead = field(init=False, repr=False)

    def __post_init__(self) -> None:
        head = self.texts.model.head
        assert isinstance(head, MaskedLMHead)  # `load_sparse_model` saw it
        object.__setattr__(self, "head", _packed(head))

    def __reduce__(self) -> tuple[type[SparseModel], tuple[object, ...]]:
        """Pickle all but the packed head, which is made anew."""
        return SparseModel, (self.texts, self.pooling, self.activation, self.settings, self.max_active_dims)

    def embed(self, hidden: np.ndarray, batch: Batch) -> Iterator[np.ndarray]:
        """Weigh the vocabulary for each text by its hidden states: (T, H) -> N arrays (V,), zero or more."""
        ends = batch.cu_seqlens.tolist()
        for first, last in split_by_budget(batch.lengths.tolist(), ROWS):
            if ends[last] - ends[first] > ROWS:  # one long text
                parts = [hidden[row : min(row + ROWS, ends[last])] for row in range(ends[first], ends[last], ROWS)]
                yield self._pooled(map(self.head, parts))
                continue
            scores = self.head(hidden[ends[first] : ends[last]])  # (M, H) -> (M, V)
            for text in range(first, last):
                yield self._pooled([scores[ends[text] - ends[first] : ends[text + 1] - ends[first]]])

    def _pooled(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """The weights (V,) of a text by its scores (S, V), given in parts."""
        total = np.zeros(self.texts.model.config.vocab_size, np.float32)
        for scores in parts:
            if self.pooling == "max":  # the weights grow with the scores, and none is below 0
                np.maximum(total, scores.max(axis=0, initial=0), out=total)
            else:
                total += self._weights(scores).sum(axis=0)
        return total if self.pooling == "sum" else self._weights(total)

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        np.maximum(scores, 0, out=scores)
        for _ in range(1 + (self.activation == "log1p_relu")):
            np.log1p(scores, out=scores)
        return scores


def load_sparse_model(folder: ModelFolder, dtype: str = "float32") -> SparseModel:
    """Load a folder with a masked LM.

    Raises
    ------
    CheckpointError
        If the folder is not usable, has another head, or a module that is not supported.
    """
    root, pooling = _parts(folder)
    model = load_model(root, dtype=dtype, task="masked-lm")
    if not isinstance(model.head, MaskedLMHead):
        raise CheckpointError(
            f"{root.path / 'config.json'}: expected an architecture for masked-lm, found one for "
            f"{model.config.task}; use a model that was trained for sparse embeddings"
        )
    texts, _ = text_model(root, model, TRANSFORMER)
    settings = call_settings(folder, "SparseEncoder", ("dot", "cosine"))
    found = Options(folder.read_optional_json(SENTENCE_SETTINGS), folder.path / SENTENCE_SETTINGS)
    return SparseModel(
        texts,
        pooling.choice("pooling_strategy", POOLINGS, "max"),
        pooling.choice("activation_function", ACTIVATIONS, "relu"),
        settings,
        found.integer("max_active_dims", 1),
    )


def _parts(folder: ModelFolder) -> tuple[ModelFolder, Options]:
    """Return the transformer's folder and the pooling's settings."""
    nothing: dict[str, Any] = {}
    if not folder.has("modules.json"):
        return folder, Options(nothing, folder.path)
    modules = folder.modules()
    kinds = [module.kind for module in modules]
    if kinds not in (["Transformer", "SpladePooling"], ["MLMTransformer", "SpladePooling"]):
        raise CheckpointError(
            f"{folder.path / 'modules.json'}: expected Transformer or MLMTransformer, and SpladePooling, found "
            f"{shown(kinds)}; ufbert supports no others"
        )
    path = folder.subfolder(modules[1].path)
    return folder.transformer(), Options(path.read_json("config.json"), path.path / "config.json")


def _packed(head: MaskedLMHead) -> MaskedLMHead:
    """Let the kernels compute all of a head: a text's weights are the same bits in any batch."""
    dense, activation = head.dense, head.activation
    if dense is not None and dense.weight is not None and activation in IN_KERNELS:
        dense, activation = Linear(dense.weight, dense.bias, activation), "identity"
    packed = dense and dense.pack("float32")
    return replace(head, dense=packed, activation=activation, decoder=head.decoder.pack("float32"))
