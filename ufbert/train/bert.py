"""BERT's encoder as a module for training. Its parameters are named by the keys of `ufbert.checkpoint.families`."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .. import activations
from ..checkpoint.build import distance_buckets
from ..checkpoint.families import family_of
from ..checkpoint.folder import ModelFolder
from ..config import ModelConfig
from ..errors import CheckpointError
from .fast_feedforward import FastFeedForward

__all__ = ["TRAINED", "Bert"]

ACTIVATIONS: dict[str, nn.Module] = {
    name: getattr(nn, act.torch)(**act.torch_arguments) for name, act in activations.TABLE.items() if act.torch
}


TRAINED = "BERT, DistilBERT, ELECTRA, RoBERTa, XLM-RoBERTa, CamemBERT or MPNet"


class Bert(nn.Module):
    """The encoder of BERT and its like (DistilBERT, RoBERTa, ...), with dense or fast feedforward layers.

    Parameters
    ----------
    config : ModelConfig
        Of a family whose checkpoints this package can write.

    Raises
    ------
    CheckpointError
        If the model is of another family or has an activation that is not trained here.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if family_of(config.family).write is None or config.hidden_act not in ACTIVATIONS:
            raise CheckpointError(
                f"config.json: expected a {TRAINED}, with one of the activations {', '.join(ACTIVATIONS)}, found "
                f"{config.family} with {config.hidden_act}; other models can be run but not trained"
            )
        self.config = config
        hidden, width = config.hidden_size, config.embedding_size or config.hidden_size
        rows = {
            "word_embeddings": config.vocab_size,
            "position_embeddings": config.max_position_embeddings,
            "token_type_embeddings": config.type_vocab_size,
        }
        tables: dict[str, nn.Module] = {key: nn.Embedding(count, width) for key, count in rows.items() if count}
        tables["embedding_norm"] = nn.LayerNorm(width, config.layer_norm_eps)
        if width != hidden:
            tables["embedding_projection"] = nn.Linear(width, hidden)
        if config.distance_buckets:
            tables["distance_bias"] = nn.Embedding(config.distance_buckets, config.num_attention_heads)
        self.embeddings: Any = nn.ModuleDict(tables)
        self.encoder: Any = nn.ModuleList(BertLayer(config) for _ in range(config.num_hidden_layers))

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Bert:
        """Read the encoder of a model folder; heads are left out.

        Raises
        ------
        CheckpointError
            If the folder is not usable.
        """
        files = ModelFolder(folder).transformer()
        model = cls(files.config(encoder_only=True))
        tensors = files.tensors()
        spelling = family_of(model.config.family).spelling(tensors)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                values = tensors.take(spelling.parameter(_key(name)), tuple(parameter.shape))
                parameter.copy_(torch.from_numpy(values.copy()))
        return model

    @property
    def layers(self) -> list[BertLayer]:
        """The encoder layers, from the first to the last."""
        return list(self.encoder)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Compute the last hidden state.

        Parameters
        ----------
        input_ids : (N, S) int64 tensor
        attention_mask : (N, S) tensor of 0 and 1, optional
        token_type_ids : (N, S) int64 tensor, optional

        Returns
        -------
        (N, S, H) float32 tensor
        """
        x = self.embed(input_ids, token_type_ids)  # (N, S, H)
        mask = self.mask(None if attention_mask is None else attention_mask[:, None, None, :].bool(), x.shape[1])
        for layer in self.layers:
            x = layer(x, mask)
        return x

    def embed(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Sum the tables' rows and normalise them: (N, S) -> (N, S, H)."""
        tables = self.embeddings
        x = tables["word_embeddings"](input_ids)
        first = self.config.first_position
        x = x + tables["position_embeddings"].weight[first : first + input_ids.shape[1]]
        if "token_type_embeddings" in tables:
            kinds = tables["token_type_embeddings"].weight
            x = x + (kinds[0] if token_type_ids is None else kinds[token_type_ids])
        x = tables["embedding_norm"](x)
        return tables["embedding_projection"](x) if "embedding_projection" in tables else x

    def mask(self, attended: Tensor | None, length: int) -> Tensor | None:
        """Give what the layers take as their mask.

        Parameters
        ----------
        attended : (N, 1, 1, S) bool tensor, optional
            False at padding.
        length : int
            S.

        Returns
        -------
        (N or 1, heads or 1, S, S or 1) tensor or None
            `attended` itself; what is added to the scores where the model has a bias by distance.
        """
        if "distance_bias" not in self.embeddings:
            return attended
        steps = np.arange(length)
        buckets = distance_buckets(steps - steps[:, None], self.config.distance_buckets)  # (S, S)
        table = self.embeddings["distance_bias"].weight
        bias = table[torch.from_numpy(buckets).to(table.device)].permute(2, 0, 1)[None]  # (1, heads, S, S)
        return bias if attended is None else bias.masked_fill(~attended, -torch.inf)

    def replace_feed_forward(self, **changes: object) -> None:
        """Give all layers new feed-forward layers, drawn at random; `changes` are fields of `ModelConfig`."""
        family = "ufbert" if changes.get("feed_forward") == "fff" else self.config.family
        self.config = replace(self.config, family=family, **changes)  # type: ignore[arg-type]
        for layer in self.layers:
            layer.build_feed_forward(self.config)
            layer.to(self.device)

    def tensors(self, with_head: bool = False, trained_only: bool = False) -> dict[str, NDArray[np.float32]]:
        """Name the weights as in a checkpoint, of a bare encoder or one with a head: C-contiguous float32 arrays."""
        spelling = family_of(self.config.family).names(with_head)
        return {
            spelling.parameter(_key(name)): np.ascontiguousarray(parameter.detach().cpu().numpy())
            for name, parameter in self.named_parameters()
            if parameter.requires_grad or not trained_only
        }


def _key(name: str) -> str:
    """Key of a parameter of `Bert` in its family, with the layer's number."""
    name = name.removeprefix("embeddings.").replace("encoder.", "layers.", 1)
    return name.replace(".ffn.linear_", ".fff_")


class BertLayer(nn.Module):
    """Attention and feed-forward, each with a residual sum and a norm after it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.layer_norm_eps
        self.num_heads, self.activation = config.num_attention_heads, config.hidden_act
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.attention_output = nn.Linear(hidden, hidden)
        self.norm1, self.norm2 = nn.LayerNorm(hidden, eps), nn.LayerNorm(hidden, eps)
        self.build_feed_forward(config)

    def build_feed_forward(self, config: ModelConfig) -> None:
        """Make a feed-forward layer of the configured kind in place of what is there."""
        hidden, width = config.hidden_size, config.intermediate_size
        self.ffn: FastFeedForward | None = None
        self.feed_forward_in: nn.Linear | None = None
        self.feed_forward_out: nn.Linear | None = None
        if config.feed_forward == "fff":
            bias = config.output_bias
            self.ffn = FastFeedForward(hidden, config.num_trees, config.depth, config.hidden_act, bias)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the weights of no neurons
                inner, outer = nn.Linear(hidden, width), nn.Linear(width, hidden)
            self.feed_forward_out, self.feed_forward_in = outer, inner
        self.activation = config.hidden_act

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attend(x, mask)
        return self.norm2(self.feed_forward(x) + x)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention, residual sum and norm: what the feed-forward layer reads. (N, S, H) -> (N, S, H)."""
        parts = (self.query, self.key, self.value)
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        qkv = functional.linear(x, weight, bias).unflatten(-1, (3, self.num_heads, -1))  # (N, S, 3, heads, H / heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # 3 x (N, heads, S, H / heads)
        if x.device.type == "cpu":  # where PyTorch's backward pass of attention is slow in bfloat16
            q, k, v = q.float(), k.float(), v.float()
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(q.dtype)
        with torch.autocast(x.device.type, enabled=False):
            context = functional.scaled_dot_product_attention(q, k, v, mask)
        context = context.transpose(1, 2).flatten(2)  # (N, S, H)
        return self.norm1(self.attention_output(context) + x)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The feed-forward layer alone, without residual and norm. (N, S, H) -> (N, S, H)."""
        if self.ffn is not None:
            return self.ffn(x)
        into, out_of = self.halves
        return out_of(ACTIVATIONS[self.activation](into(x)))

    @property
    def halves(self) -> tuple[nn.Linear, nn.Linear]:
        """What leads to the neurons and away from them, of trees or of a dense layer."""
        if self.ffn is not None:
            return self.ffn.linear_in, self.ffn.linear_out
        assert self.feed_forward_in is not None
        assert self.feed_forward_out is not None
        return self.feed_forward_in, self.feed_forward_out
