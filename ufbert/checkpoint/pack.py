"""A plain model packed for the kernels at one precision, its encoder layers fused where the kernels can do that."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, overload

import numpy as np

from .. import checks, dense
from ..activations import IN_KERNELS
from ..cmm import PackedFFF
from ..dense import FusedLayer, Linear
from ..encoder import Model
from ..errors import InputError
from ..heads import MaskedLMHead, SequenceClassifier, TokenClassifier
from ..int8 import FactoredRows, Int8Matrix
from ..isa import active_isa
from ..layers import EncoderLayer, FastFeedForward, GatedFeedForward, Trees
from ..log import debug
from ..precision import AUTO, Precision, automatic
from .build import build_model
from .folder import ModelFolder

__all__ = ["fuse", "load", "load_model", "pack"]

Head = MaskedLMHead | SequenceClassifier | TokenClassifier | None


def load(folder: str | os.PathLike[str], dtype: str = "float32") -> Model:
    """Load the model of a folder, with the head that its ``config.json`` names.

    Parameters
    ----------
    folder : str or path
        ``config.json`` and ``model.safetensors`` (or a sharded index), as Hugging Face's transformers, this package
        or the authors of crammedBERT and UltraFastBERT store them; in a sub-folder where ``modules.json`` says so.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the layers' weights; see `ufbert.dense.Linear` and `ufbert.cmm.PackedFFF`. "auto": the fastest on
        this CPU whose lowest cosine to float32 stays above 0.99; see `ufbert.precision`.

    Returns
    -------
    Model
        Word embeddings and heads of a float32 file stay mapped to it, so do not overwrite it in place while the model
        lives; layers keep packed copies of their weights.

    Raises
    ------
    CheckpointError
        If a file, a tensor or an option is missing, faulty or unknown.
    InputError
        If `dtype` is unknown, or needs the compiled kernels and they are missing.
    """
    root = ModelFolder(folder)
    return load_model(root if root.has("config.json") else root.transformer(), dtype=dtype)


def load_model(
    folder: ModelFolder, encoder_only: bool = False, dtype: str = "float32", task: str | None = None
) -> Model:
    """Load a model.

    With `encoder_only` its head is left out, whatever it is, and BERT's pooler too. `task` is what a ``config.json``
    without ``architectures`` is taken for.
    """
    precision = Precision(checks.choice(dtype, "dtype", (*dense.DTYPES, AUTO)), "asked for")
    if dtype == AUTO:
        precision = automatic(folder.config(encoder_only, task).feed_forward)
        dtype = precision.dtype
    if dtype != "float32" and not dense.is_available():
        raise InputError(f"dtype: expected float32, the only one without compiled kernels, got {dtype}; install them")
    model = build_model(folder, encoder_only, task, partial(pack, dtype=dtype) if dense.is_available() else None)
    encoder = replace(model.encoder, layers=tuple(map(fuse, model.encoder.layers)))
    pooler = model.pooler and replace(model.pooler, dense=model.pooler.dense.pack("float32"))
    fused = sum(layer.fused is not None for layer in encoder.layers)
    debug("loaded %s: %s on %s, %d of %d layers fused", folder.path, dtype, active_isa(), fused, len(encoder.layers))
    again = partial(_load_again, os.path.abspath(folder.path), encoder_only, dtype, task)
    head = _pack_head(model.head, dtype)
    digest = lru_cache(partial(_digest, os.path.abspath(folder.path)))
    return replace(
        model, encoder=encoder, pooler=pooler, head=head, precision=precision, reload=again, digest=digest
    )  # fmt: skip


def _digest(path: str) -> str:
    return ModelFolder(path).sha256()


def _load_again(path: str, encoder_only: bool, dtype: str, task: str | None) -> Model:
    """Load a model that was pickled."""
    return load_model(ModelFolder(path), encoder_only, dtype, task)


@overload
def pack(part: Linear, dtype: str) -> Linear: ...
@overload
def pack(part: Trees, dtype: str) -> PackedFFF: ...
def pack(part: Linear | Trees, dtype: str) -> Linear | PackedFFF:
    """Lay plain weights out for the kernels; those of trees that are stored in 8 bits stay as they are for "int8"."""
    if isinstance(part, Linear):
        return part.pack(dtype)
    w_out = part.w_out
    if dtype == "int8" and not isinstance(w_out, FactoredRows):
        w_out = FactoredRows.levelled(w_out.astype(np.float32, order="C", copy=False), part.columns)
    return PackedFFF(part.w_in, part.b_in, w_out, part.depth, activation=part.activation, weight_dtype=dtype)


def _pack_head(head: Head, dtype: str) -> Head:
    """Let the kernels compute a head. Classifiers are in float32: their logits are the same bits in any batch."""
    if isinstance(head, SequenceClassifier):
        inner = None if head.dense is None else head.dense.pack("float32")
        return replace(head, dense=inner, classifier=head.classifier.pack("float32"))
    if isinstance(head, TokenClassifier):
        transform = head.transform and replace(head.transform, dense=head.transform.dense.pack("float32"))
        return replace(head, classifier=head.classifier.pack("float32"), transform=transform)
    # In float32 a copy for the kernels gains nothing: one row reads the whole table anyway. It must be float32, though.
    if head is not None and (dtype != "float32" or isinstance(head.decoder.weight, Int8Matrix)):
        return replace(head, decoder=pack(head.decoder, dtype))
    return head


def fuse(layer: EncoderLayer) -> EncoderLayer:
    """Put one kernel in place of a layer's packed parts, if it can do what all of them do; else say why not.

    Returns
    -------
    EncoderLayer
        With `fused`, or with `not_fused`.
    """
    obstacle = _obstacle(layer)
    if obstacle:
        return replace(layer, fused=None, not_fused=obstacle)
    attention, feed_forward = layer.attention, layer.feed_forward
    parts: Any = (
        (feed_forward.trees, feed_forward.bias)
        if isinstance(feed_forward, FastFeedForward)
        else (feed_forward.dense_in, feed_forward.dense_out)
    )
    first, second = layer.norm1, layer.norm2
    fused = FusedLayer(
        attention.query_key_value,
        attention.output,
        parts,
        norm1=None if first is None else (first.weight, first.bias, first.eps),
        norm2=(second.weight, second.bias, second.eps),
        num_heads=attention.num_heads,
        scale=attention.scale,
        norm_position=layer.norm_position,
        distance_bias=attention.distance_bias,
        rotations=attention.rotations,
        window=attention.window,
        gate=feed_forward.activation if isinstance(feed_forward, GatedFeedForward) else None,
    )
    return replace(layer, fused=fused, not_fused="")


def _obstacle(layer: EncoderLayer) -> str:
    """What the kernel of a whole layer cannot do; empty if it can do all."""
    if not dense.is_available():
        return "no compiled kernels"
    if layer.norm2.bias is None:
        return f"{layer.norm2.kind} has no kernel"
    if layer.attention.output is None:
        return "no output projection"
    if isinstance(layer.feed_forward, GatedFeedForward) and layer.feed_forward.activation not in IN_KERNELS:
        return f"{layer.feed_forward.activation} has no kernel"
    if isinstance(layer.feed_forward, FastFeedForward):
        packed = isinstance(layer.feed_forward.trees, PackedFFF) and layer.feed_forward.trees.packed is not None
        return "" if packed else "the trees are not packed"
    for linear in (layer.feed_forward.dense_in, layer.feed_forward.dense_out):
        if not linear.is_fused:
            return "no neurons" if 0 in linear.shape else f"{linear.activation} has no kernel"
    return ""
