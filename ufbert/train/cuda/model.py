"""BERT's encoder over packed rows of tokens, with the parameters of a `Bert` and of the layouts that kernels want."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..bert import Bert, BertLayer
from ..fast_feedforward import FastFeedForward
from . import functions
from .functions import Attention, Linear, Norm, Trees, TreeShape

__all__ = ["PackedBatch", "PackedBert"]


class PackedBatch(NamedTuple):
    """Texts end to end in rows of `ROW` tokens, none across a row's end.

    Attributes
    ----------
    input_ids, position_ids : (T,) int32 tensor
    segment : (T,) int32 tensor
        Which text a token is of; padding has the largest number, `num_segments`.
    """

    input_ids: Tensor
    position_ids: Tensor
    segment: Tensor


class PackedBert(nn.Module):
    """A `Bert` on a device: float32 parameters, hidden states (T, H) of all layers.

    Parameters
    ----------
    bert : Bert
        Is read; `write_to` gives trained parameters back.
    device : torch.device
    precision : torch.dtype
        What multiplies matrices.
    decides, switch_cost
        How trees learn, see `TreeShape`.
    """

    def __init__(
        self, bert: Bert, device: torch.device, precision: torch.dtype, decides: bool = True, switch_cost: float = 0.2
    ) -> None:
        super().__init__()
        self.config, self.precision, self.eps = bert.config, precision, bert.config.layer_norm_eps
        tables = bert.embeddings
        self.words = _copied(tables["word_embeddings"].weight)
        first = bert.config.first_position
        self.positions = _copied(tables["position_embeddings"].weight[first : first + functions.ROW])
        self.kind = None  # of models without token types
        if "token_type_embeddings" in tables:
            self.kind = _copied(tables["token_type_embeddings"].weight[0])
        self.norm_weight, self.norm_bias = (_copied(p) for p in tables["embedding_norm"].parameters())
        layers = [PackedLayer(layer, self.eps, precision) for layer in bert.layers]
        self.layers: Any = nn.ModuleList(layers)
        for layer in layers:
            if layer.trees is not None:
                layer.trees.decides, layer.trees.switch_cost = decides and layer.trees.depth > 0, switch_cost
        self.to(device)

    def forward(self, batch: PackedBatch) -> list[Tensor]:
        """Compute what each layer gives, L tensors (T, H) float32."""
        words = self.words.index_select(0, batch.input_ids)
        others = self.positions.index_select(0, batch.position_ids)
        if self.kind is not None:
            others = others + self.kind
        x, lower = Norm.apply(words, others, self.norm_weight, self.norm_bias, self.eps, self.precision)
        outputs = []
        for layer in self.layers:
            x, lower = layer(x, lower, batch.segment)
            outputs.append(x)
        return outputs

    @torch.no_grad()
    def write_to(self, bert: Bert) -> None:
        """Copy the parameters into `bert`."""
        tables = bert.embeddings
        tables["word_embeddings"].weight.copy_(self.words)
        first = bert.config.first_position
        tables["position_embeddings"].weight[first : first + len(self.positions)] = self.positions.to(bert.device)
        if self.kind is not None:
            tables["token_type_embeddings"].weight[0] = self.kind.to(bert.device)
        norm = tables["embedding_norm"]
        for target, source in zip(norm.parameters(), (self.norm_weight, self.norm_bias), strict=True):
            target.copy_(source)
        for packed, layer in zip(self.layers, bert.layers, strict=True):
            packed.write_to(layer)

    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of feed-forward layers, of all else in the layers, of the embeddings."""
        inner = [p for layer in self.layers for p in layer.feed_forward_parameters()]
        known = {id(p) for p in inner}
        other = [p for layer in self.layers for p in layer.parameters() if id(p) not in known]
        known |= {id(p) for p in other}
        return inner, other, [p for p in self.parameters() if id(p) not in known]


class PackedLayer(nn.Module):
    """One encoder layer: attention and feed-forward, each with a residual sum and a norm after it."""

    def __init__(self, layer: BertLayer, eps: float, precision: torch.dtype) -> None:
        super().__init__()
        self.eps, self.precision, self.num_heads = eps, precision, layer.num_heads
        heads, output = (layer.query, layer.key, layer.value), layer.attention_output
        self.qkv_weight = _copied(torch.cat([part.weight for part in heads]))
        self.qkv_bias = _copied(torch.cat([part.bias for part in heads]))
        self.out_weight, self.out_bias = _copied(output.weight), _copied(output.bias)
        self.norm1 = nn.ParameterList(_copied(p) for p in layer.norm1.parameters())
        self.norm2 = nn.ParameterList(_copied(p) for p in layer.norm2.parameters())
        self.trees: TreeShape | None = None
        self.activation = layer.activation
        if layer.ffn is not None:
            trees = layer.ffn
            self.trees = TreeShape(trees.num_trees, trees.depth)
            self.ffn = nn.ParameterList(_copied(p) for p in (*_padded(trees), trees.linear_out.bias))
        else:
            self.ffn = nn.ParameterList(_copied(p) for half in layer.halves for p in (half.weight, half.bias))

    def forward(self, x: Tensor, lower: Tensor, segment: Tensor) -> tuple[Tensor, Tensor]:
        x, lower = self.attend(x, lower, segment)
        return Norm.apply(x, self.feed_forward(x, lower), *self.norm2, self.eps, self.precision)

    def attend(self, x: Tensor, lower: Tensor, segment: Tensor) -> tuple[Tensor, Tensor]:
        """Self-attention, residual sum and norm: what the feed-forward layer reads, in float32 and lower."""
        qkv = Linear.apply(lower, self.qkv_weight, self.qkv_bias)
        context = Attention.apply(qkv, segment, x.shape[1] // self.num_heads)
        delta = Linear.apply(context, self.out_weight, self.out_bias)
        return Norm.apply(x, delta, *self.norm1, self.eps, functions.SCORE if self.trees else self.precision)

    def feed_forward(self, x: Tensor, lower: Tensor) -> Tensor:
        """The feed-forward layer alone: (T, H) -> (T, H)."""
        if self.trees is not None:
            y, _ = Trees.apply(x, lower, *self.ffn, self.trees)
            return y
        inner = Linear.apply(lower, self.ffn[0], self.ffn[1])
        if self.activation != "identity":
            inner = nn.functional.gelu(inner)
        return Linear.apply(inner, self.ffn[2], self.ffn[3])

    def feed_forward_parameters(self) -> list[nn.Parameter]:
        """Weights and biases of the feed-forward layer."""
        return list(self.ffn)

    def write_to(self, layer: BertLayer) -> None:
        """Copy the parameters into `layer`."""
        heads, parts = (layer.query, layer.key, layer.value), (self.qkv_weight.chunk(3), self.qkv_bias.chunk(3))
        for head, weight, bias in zip(heads, *parts, strict=True):
            head.weight.copy_(weight)
            head.bias.copy_(bias)
        layer.attention_output.weight.copy_(self.out_weight)
        layer.attention_output.bias.copy_(self.out_bias)
        for norm, source in ((layer.norm1, self.norm1), (layer.norm2, self.norm2)):
            norm.weight.copy_(source[0])
            norm.bias.copy_(source[1])
        ours = list(self.ffn)
        if layer.ffn is not None:
            w_in, b_in, w_out = (_unpadded(p, layer.ffn) for p in ours[:3])
            ours[:3] = w_in, b_in, w_out.t()
        for linear, weight, bias in zip(layer.halves, ours[::2], ours[1::2], strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)


def _copied(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().float().clone(memory_format=torch.contiguous_format))


def _padded(trees: FastFeedForward) -> tuple[Tensor, Tensor, Tensor]:
    """w_in, b_in and w_out with a row of zeros behind each tree."""
    p, n = trees.num_trees, trees.num_nodes
    arrays = trees.linear_in.weight, trees.linear_in.bias[:, None], trees.linear_out.weight.t()
    w_in, b_in, w_out = (nn.functional.pad(array.detach().reshape(p, n, -1), (0, 0, 0, 1)) for array in arrays)
    return w_in.flatten(0, 1), b_in.flatten(), w_out.flatten(0, 1)


def _unpadded(parameter: Tensor, trees: FastFeedForward) -> Tensor:
    """A parameter of trees without the rows of zeros."""
    return parameter.unflatten(0, (trees.num_trees, trees.num_nodes + 1))[:, :-1].flatten(0, 1)
