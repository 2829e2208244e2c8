"""Configuration and tensors to a model of plain arrays. Every shape is checked before anything is allocated."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..encoder import Encoder, Model
from ..errors import CheckpointError
from ..heads import MaskedLMHead, Pooler, SequenceClassifier, TokenClassifier, Transform
from ..int8 import Int8Matrix, input_rows, output_rows
from ..layers import (
    Embeddings,
    EncoderLayer,
    FastFeedForward,
    FeedForward,
    GatedFeedForward,
    Linear,
    Norm,
    SelfAttention,
    Trees,
)
from ..stored import Matrix, stacked
from .families import family_of
from .families.ufbert import column_factors, expand, kept_nodes
from .folder import ModelFolder
from .positions import distance_buckets, sinusoids
from .tensors import Tensors

__all__ = ["build_model", "distance_buckets"]

Finish = Callable[[Any], Any]


def build_model(
    folder: ModelFolder, encoder_only: bool = False, task: str | None = None, finish: Finish | None = None
) -> Model:
    """Read a model whose layers are plain arrays, which NumPy multiplies.

    Parameters
    ----------
    folder : ModelFolder
    encoder_only : bool
        Leave the head out, whatever it is, and BERT's pooler.
    task : str, optional
        What a ``config.json`` without ``architectures`` is taken for; by default a bare encoder.
    finish : callable, optional
        Gives what takes the place of a `Linear` or `Trees` in the encoder layers, whose weights it gets as they are
        stored. It is called as soon as one is read, so that only one of them is held twice.

    Returns
    -------
    Model
        Arrays of a float32 file stay mapped to it.

    Raises
    ------
    CheckpointError
        If a file, a tensor or an option is missing, faulty or unknown.
    """
    config = folder.config(encoder_only, task)
    source = Source(config, folder.tensors(), finish)
    model = source.model(with_pooler=not encoder_only)
    source.check_unused(encoder_only)
    source.tensors.release()
    return model


class Source:
    """Builds the parts of a model from named tensors, with the sizes that the configuration gives."""

    def __init__(self, config: ModelConfig, tensors: Tensors, finish: Finish | None) -> None:
        self.config, self.tensors, self.as_stored = config, tensors, finish is not None
        self.finish: Finish = finish or (lambda part: part)
        self.family = family_of(config.family)
        self.spelling = self.family.spelling(tensors)
        self.table_width = config.embedding_size or config.hidden_size

    def model(self, with_pooler: bool) -> Model:
        config = self.config
        self.check_layer_count()
        encoder = Encoder(
            self.embeddings(),
            tuple(self.layer(index) for index in range(config.num_hidden_layers)),
            self.norm("final_norm") if config.final_norm else None,
        )
        pooler = None
        if with_pooler and self.uses_pooler() and self.has("pooler.weight"):
            pooler = Pooler(self.linear("pooler", config.hidden_size, config.hidden_size))
        return Model(config, encoder, pooler, self.head(encoder, pooler))

    def uses_pooler(self) -> bool:
        on_pooler = self.config.task == "sequence-classification" and self.family.dense_key == "pooler"
        return self.config.task == "base" or on_pooler

    def embeddings(self) -> Embeddings:
        config, width = self.config, self.table_width
        # Rows are widened as they are looked up, so a table in 8 or 16 bits can stay mapped.
        stored = "word_embeddings.weight"
        if config.tie_word_embeddings and not self.has(stored) and self.has("lm_decoder.weight"):
            stored = "lm_decoder.weight"  # tied, the two are one tensor, under either name
        word = self.tensors.take_stored(self.name(stored), (config.vocab_size, width), keep_float16=True)
        token_type = None
        if config.type_vocab_size:
            token_type = self.tensor("token_type_embeddings.weight", (config.type_vocab_size, width))
        norm = self.norm("embedding_norm", width=width) if config.embedding_norm else None
        projection = None
        if width != config.hidden_size:
            projection = self.finish(self.layer_linear("embedding_projection", config.hidden_size, width))
        return Embeddings(word, self.positions(), token_type, norm, projection)

    def positions(self) -> np.ndarray | None:
        shape = (self.config.max_position_embeddings, self.table_width)
        kind = self.config.position_embedding
        if kind == "learned":
            return self.tensor("position_embeddings.weight", shape)
        if kind in ("none", "rotary"):
            return None
        scale = self.tensor("position_scale", (1,)) if kind == "scaled-sinusoidal" else np.float32(1)
        return scale * sinusoids(*shape)

    def layer(self, index: int) -> EncoderLayer:
        attention = self.attention(index)
        feed_forward = self.fast_feed_forward(index) if self.config.feed_forward == "fff" else self.feed_forward(index)
        norm1 = self.norm("norm1", index) if index > 0 or self.config.first_norm else None
        return EncoderLayer(attention, feed_forward, norm1, self.norm("norm2", index), self.config.norm_position)

    def attention(self, index: int) -> SelfAttention:
        config, hidden = self.config, self.config.hidden_size
        scale = config.head_size**-0.5
        if "query_key_value" in self.spelling:
            qkv = self.interleaved_query_key_value(index)
            if self.has("attention_scale", layer=index):
                scale = float(self.tensor("attention_scale", (), index))
        elif "queries_keys_values" in self.spelling:
            qkv = self.layer_linear("queries_keys_values", 3 * hidden, hidden, config.qkv_bias, index)
        else:
            qkv = self.together(("query", "key", "value"), hidden, config.qkv_bias, index)
        output = None
        if config.output_projection:
            output = self.finish(self.layer_linear("attention_output", hidden, hidden, config.linear_bias, index))
        windowed = any(config.windowed_layers[index : index + 1])
        rotations, window = (self.window_rotations, config.window) if windowed else (self.rotations, None)
        positions = self.distance_bias, rotations, window
        return SelfAttention(self.finish(qkv), output, config.num_attention_heads, scale, *positions)

    def together(self, keys: tuple[str, ...], width: int, bias: bool, layer: int) -> Linear:
        """Linear layers of one input and `width` outputs each, as one."""
        parts = [self.weights(key, width, self.config.hidden_size, bias, layer, self.as_stored) for key in keys]
        weights, biases = zip(*parts, strict=True)
        return Linear(stacked(weights), np.concatenate(biases) if bias else None)

    @cached_property
    def rotations(self) -> np.ndarray | None:
        """Of all layers, or all but windowed ones: (positions, head size); see `rotary_table`."""
        return self.rotary_table(self.config.rotary_base)

    @cached_property
    def window_rotations(self) -> np.ndarray | None:
        """Of windowed layers."""
        return self.rotary_table(self.config.window_rotary_base)

    def rotary_table(self, base: float) -> np.ndarray | None:
        """Cosines and sines of the angles, (positions, head size). arXiv 2104.09864."""
        config = self.config
        if config.position_embedding != "rotary":
            return None
        steps = np.arange(0, config.head_size, 2, dtype=np.float32) / np.float32(config.head_size)
        frequencies = np.float32(1) / np.float32(base) ** steps
        angles = np.arange(config.max_length, dtype=np.float32)[:, None] * frequencies
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    @cached_property
    def distance_bias(self) -> np.ndarray | None:
        """Of all layers: (heads, 2R + 1), the file's values of each bucket of distances. arXiv 1910.10683, 2.1."""
        buckets, heads = self.config.distance_buckets, self.config.num_attention_heads
        if not buckets:
            return None
        reach = self.config.max_length - 1
        table = self.tensor("distance_bias.weight", (buckets, heads))
        return np.ascontiguousarray(table[distance_buckets(np.arange(-reach, reach + 1), buckets)].T)

    def interleaved_query_key_value(self, index: int) -> Linear:
        """Rows in the order head, (q, k, v), column of the head -> (q, k, v), head, column."""
        config = self.config
        shape = 3 * config.hidden_size, config.hidden_size
        weight, bias = self.weights("query_key_value", *shape, config.qkv_bias, index)
        rows = np.arange(shape[0]).reshape(config.num_attention_heads, 3, config.head_size)
        return reordered(weight, bias, rows.swapaxes(0, 1).reshape(-1))

    def feed_forward(self, index: int) -> FeedForward | GatedFeedForward:
        config, width = self.config, self.config.intermediate_size
        gated = config.feed_forward == "gated"
        act = None if gated else config.hidden_act
        if "feed_forward_gate" in self.spelling:
            keys = "feed_forward_value", "feed_forward_gate"
            dense_in = self.finish(self.together(keys, width // 2, config.linear_bias, index))
        elif "feed_forward_gates_values" in self.spelling:
            key, sizes = "feed_forward_gates_values", (width, config.hidden_size)
            order = np.roll(np.arange(width), width // 2)  # values first
            dense_in = self.finish(reordered(*self.weights(key, *sizes, config.linear_bias, index), order))
        else:
            sizes = width, config.hidden_size
            dense_in = self.finish(self.layer_linear("feed_forward_in", *sizes, config.linear_bias, index, act))
        sizes = config.hidden_size, width // 2 if gated else width
        dense_out = self.finish(self.layer_linear("feed_forward_out", *sizes, config.linear_bias, index))
        return GatedFeedForward(dense_in, dense_out, config.hidden_act) if gated else FeedForward(dense_in, dense_out)

    def fast_feed_forward(self, index: int) -> FastFeedForward:
        config = self.config
        trees, nodes, hidden = config.num_trees, config.num_nodes, config.hidden_size
        kept = kept_nodes(self.tensors, self.name("fff_nodes", index), trees, nodes) if config.pruned else None
        stored = trees * nodes if kept is None else len(kept)
        whole = partial(_heaps, kept=kept, trees=trees, nodes=nodes, in_order=not self.as_stored)
        w_in = self.tree_matrix("fff_in.weight", (stored, hidden), index)
        b_in = whole(self.tensor("fff_in.bias", (stored,), index))
        w_out = self.tree_matrix("fff_out.weight", (hidden, stored), index)
        columns = column_factors(self.tensors, self.name("fff_columns", index), hidden)
        rows = input_rows(w_in, whole), output_rows(w_out, whole)
        packed = self.finish(Trees(rows[0], b_in, rows[1], config.depth, config.hidden_act, columns))
        return FastFeedForward(packed, self.tensor("fff_out.bias", (hidden,), index) if config.output_bias else None)

    def head(
        self, encoder: Encoder, pooler: Pooler | None
    ) -> MaskedLMHead | SequenceClassifier | TokenClassifier | None:
        config, hidden = self.config, self.config.hidden_size
        if config.task == "masked-lm":
            return self.masked_lm_head(encoder)
        if config.task == "token-classification":
            key = "token_classifier" if "token_classifier" in self.spelling else "classifier"
            return TokenClassifier(self.linear(key, config.num_labels, hidden), self.token_transform())
        if config.task == "question-answering":
            key = "question_answering" if "question_answering" in self.spelling else "classifier"
            return TokenClassifier(self.linear(key, 2, hidden), self.token_transform())
        if config.task == "sequence-classification":
            return self.sequence_classifier(pooler)
        return None

    def token_transform(self) -> Transform | None:
        return self.transform() if self.config.token_transform else None

    def transform(self) -> Transform:
        config, hidden = self.config, self.config.hidden_size
        return Transform(self.linear("lm_dense", hidden, hidden, config.lm_bias), config.lm_act, self.norm("lm_norm"))

    def masked_lm_head(self, encoder: Encoder) -> MaskedLMHead:
        config, width = self.config, self.table_width
        dense = norm = None
        if config.lm_transform:
            dense = self.linear("lm_dense", width, config.hidden_size, config.lm_bias)
            norm = self.norm("lm_norm", width=width)
        weight, bias = encoder.embeddings.word, None
        if config.tie_word_embeddings:
            self.check_tied("word_embeddings.weight", "lm_decoder.weight")
            self.check_tied("lm_bias", "lm_decoder.bias")
        else:
            weight = self.tensor("lm_decoder.weight", (config.vocab_size, width))
        if config.decoder_bias:
            # Tied, the two are one, under either name; untied, transformers adds the decoder's own.
            keys = ("lm_bias", "lm_decoder.bias") if config.tie_word_embeddings else ("lm_decoder.bias", "lm_bias")
            bias = self.tensor(next(filter(self.has, keys), "lm_bias"), (config.vocab_size,))
        return MaskedLMHead(dense, config.lm_act or config.hidden_act, norm, Linear(weight, bias))

    def sequence_classifier(self, pooler: Pooler | None) -> SequenceClassifier:
        config, head = self.config, self.config.classification_head
        if head is None:
            raise CheckpointError("config.json: arch: classification_head: expected its settings, they are missing")
        dense = None if pooler is None else pooler.dense  # BERT's classifier stands on its pooler
        norm = None
        if head.norm:
            transform = self.transform()
            dense, norm = transform.dense, transform.norm
        elif dense is None and head.include_ff_layer:
            dense = self.linear(self.family.dense_key, head.head_dim, config.hidden_size)
        classifier = self.linear("classifier", config.num_labels, head.head_dim)
        return SequenceClassifier(head.pooler, dense, head.activation, classifier, norm)

    def check_tied(self, first: str, second: str) -> None:
        """Refuse a file in which two tensors differ that are one in the model."""
        if not (self.has(first) and self.has(second)) or self.name(first) == self.name(second):
            return
        one, two = self.tensors.tensor(self.name(first)), self.tensors.tensor(self.name(second))
        bits = [np.frombuffer(tensor.data, np.uint8) for tensor in (one, two)]
        if one.dtype != two.dtype:
            bits = [tensor.float32() for tensor in (one, two)]
        if not np.array_equal(bits[0], bits[1]):
            raise CheckpointError(
                f"{two.file}: tensor {two.name}: expected the values of {one.name}, which it is tied to, found other "
                "values; versions of transformers differ in which of them they use: say in config.json "
                "(tie_word_embeddings) whether they were tied in training"
            )

    def name(self, key: str, layer: int = 0) -> str:
        return self.spelling(key, layer)

    def has(self, key: str, layer: int = 0) -> bool:
        return key in self.spelling and self.name(key, layer) in self.tensors

    def tensor(self, key: str, shape: tuple[int, ...], layer: int = 0) -> np.ndarray:
        return self.tensors.take(self.name(key, layer), shape)

    def tree_matrix(self, key: str, shape: tuple[int, ...], layer: int) -> np.ndarray | Int8Matrix:
        """Take a matrix of trees; in float16 where it is stored so and the kernels pack it."""
        stored = self.tensors.take_matrix(self.name(key, layer), shape)
        if isinstance(stored, Int8Matrix):
            return stored
        values = stored.pieces[0]
        return values if self.as_stored and values.dtype == np.float16 else stored[:]

    def layer_linear(
        self, key: str, out_width: int, in_width: int, bias: bool = True, layer: int = 0, activation: str | None = None
    ) -> Linear:
        """A linear layer for `finish`."""
        return Linear(*self.weights(key, out_width, in_width, bias, layer, self.as_stored), activation)

    def linear(
        self, key: str, out_width: int, in_width: int, bias: bool = True, layer: int = 0, activation: str | None = None
    ) -> Linear:
        return Linear(*self.weights(key, out_width, in_width, bias, layer), activation)

    def weights(
        self, key: str, out_width: int, in_width: int, bias: bool = True, layer: int = 0, as_stored: bool = False
    ) -> tuple[Matrix, np.ndarray | None]:
        """Weight and bias; the weight as float32, or in 8 bits if it is stored so, or in any case `as_stored`."""
        take = self.tensors.take_matrix if as_stored else self.tensors.take_stored
        weight = take(self.name(key + ".weight", layer), (out_width, in_width))
        return weight, self.tensor(key + ".bias", (out_width,), layer) if bias else None

    def norm(self, key: str, layer: int = 0, width: int | None = None) -> Norm:
        config = self.config
        shape: tuple[int, ...] = () if config.norm == "scale_norm" else (width or config.hidden_size,)
        if config.norm != "layer_norm":
            scale = self.tensor(key + ".learnable_scale", shape, layer)
            return Norm(config.norm, scale, None, config.layer_norm_eps)
        # Checkpoints converted from TensorFlow in 2018 and 2019 still say gamma and beta.
        old = self.has(key + ".gamma", layer)
        weight = self.tensor(key + (".gamma" if old else ".weight"), shape, layer)
        bias = np.zeros(shape, np.float32)
        if config.norm_bias:
            bias = self.tensor(key + (".beta" if old else ".bias"), shape, layer)
        return Norm(config.norm, weight, bias, config.layer_norm_eps)

    def check_layer_count(self) -> None:
        """Refuse a checkpoint with more layers than configured, before the loop over them."""
        extra = self.name("norm1", self.config.num_hidden_layers).rsplit(".", 1)[0] + "."
        found = [name for name in self.tensors.names() if name.startswith(extra)]
        if found:
            raise CheckpointError(
                f"{self.tensors.where}: tensor {found[0]}: expected {self.config.num_hidden_layers} layers from "
                "config.json (num_hidden_layers), found one more; are config.json and weights of the same model?"
            )

    def check_unused(self, encoder_only: bool) -> None:
        """Refuse tensors that nothing used, but those that are known to be superfluous; they must fit all the same."""
        vocab_size, hidden = self.config.vocab_size, self.config.hidden_size
        known = {
            "lm_decoder.weight": (vocab_size, self.table_width),
            "lm_bias": (vocab_size,),
            "lm_decoder.bias": (vocab_size,),
        }
        known |= {"pooler.weight": (hidden, hidden), "pooler.bias": (hidden,)}
        for key, shape in known.items():
            if self.has(key):
                self.tensors.checked(self.name(key), shape)
        pattern = self.family.may_be_unused(with_other_heads=encoder_only or self.config.task == "base")
        unexpected = [name for name in self.tensors.unused() if not re.fullmatch(pattern, name)]
        if unexpected:
            raise CheckpointError(
                f"{self.tensors.where}: tensor {unexpected[0]}: found {len(unexpected)} tensor(s) that config.json "
                "does not account for, expected none; are config.json and weights of the same model?"
            )


def reordered(weight: Matrix, bias: np.ndarray | None, order: np.ndarray) -> Linear:
    """Give a linear layer with its outputs in another order; in 8 bits where it was."""
    rows: np.ndarray | Int8Matrix
    if isinstance(weight, Int8Matrix):
        rows = Int8Matrix(weight.values[order], weight.scale[order], weight.columns)
    else:
        rows = weight[order]
    return Linear(rows, None if bias is None else bias[order])


def _heaps(rows: np.ndarray, kept: np.ndarray | None, trees: int, nodes: int, in_order: bool = True) -> np.ndarray:
    """Put the rows of stored nodes into whole trees: (stored, ...) -> (P, n, ...), C-contiguous if `in_order`."""
    rows = rows if kept is None else expand(rows, kept, trees * nodes)
    return (np.ascontiguousarray(rows) if in_order else rows).reshape(trees, nodes, *rows.shape[1:])
