"""crammedBERT and UltraFastBERT, as their authors store them. arXiv 2212.14034, 2311.10770."""

from __future__ import annotations

from typing import Any

from ...activations import IN_KERNELS, TORCH
from ...config import LIMITS, ClassificationHeadConfig, ModelConfig, check_size
from ..options import Options
from .family import Family, labels
from .ufbert import FFF_COLUMNS, FFF_NODES

__all__ = ["FAMILY"]

ACTIVATIONS = {spelling: name for spelling, name in TORCH.items() if name in IN_KERNELS}
NORMS = {"LayerNorm": "layer_norm", "RMSNorm": "rms_norm", "ScaleNorm": "scale_norm"}
POSITIONS = {
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "scaled-sinusoidal": "scaled-sinusoidal",
    None: "none",
}
POOLERS = ("zero_index", "avg", "max", "lse")


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of crammedBERT."""
    arch = top.section("arch")
    if not arch.values:
        raise arch.error("arch", "the settings of a crammedBERT model", None)
    attention, embedding = arch.section("attention"), arch.section("embedding")
    arch.refuse_unless("norm_scheme", ("pre", None), "pre")
    arch.refuse_unless("ffn_layer_frequency", (1, None), 1)
    attention.refuse_unless("type", ("self-attention",), "self-attention")
    attention.refuse_unless("causal_attention", (False, None), False)
    attention.refuse_unless("rotary_embedding", (False, None), False)
    attention.refuse_unless("sequence_op", ("torch-softmax",), "torch-softmax")
    hidden_size = arch.get("hidden_size", None)
    check_size(hidden_size, "hidden_size", 1, LIMITS["hidden_size"])
    embedding.refuse_unless("embedding_dim", (hidden_size, None), hidden_size)
    classes = labels(top)
    if not classes["id2label"]:
        classes["num_labels"] = arch.get("num_labels", 2)
    return ModelConfig(
        family="crammed",
        task=task,
        vocab_size=embedding.get("vocab_size", None),
        hidden_size=hidden_size,
        num_hidden_layers=arch.get("num_transformer_layers", None),
        num_attention_heads=attention.get("num_attention_heads", None),
        layer_norm_eps=arch.number("norm_eps", 1e-12),
        max_position_embeddings=embedding.get("max_seq_length", None),
        position_embedding=POSITIONS[embedding.choice("pos_embedding", POSITIONS, None)],
        embedding_norm=embedding.flag("normalization", True),
        norm=NORMS[arch.choice("norm", NORMS, "LayerNorm")],
        norm_position="pre",
        final_norm=arch.flag("final_norm", True),
        qkv_bias=attention.flag("qkv_bias", False),
        linear_bias=arch.flag("use_bias", True),
        lm_bias=arch.flag("use_bias", True),
        output_projection=not attention.flag("skip_output_projection", False),
        lm_transform=not arch.flag("skip_head_transform", False),
        decoder_bias=arch.flag("decoder_bias", True),
        tie_word_embeddings=arch.flag("tie_weights", True),
        pad_token_id=embedding.get("pad_token_id", 0),
        classification_head=_classification_head(arch.section("classification_head"), hidden_size),
        **classes,
        **_feed_forward(top, arch),
    )


def _feed_forward(top: Options, arch: Options) -> dict[str, Any]:
    kind = arch.choice("intermed_type", ("ff", "fff", None), None)
    gated = {name + "glu": act for name, act in ACTIVATIONS.items()}
    if kind == "fff":
        name = arch.choice("nonlin", ACTIVATIONS, "GELU")
        sizes = {"num_trees": arch.get("intermed_size", None), "depth": arch.get("intermed_depth", None)}
        pruned = top.flag("pruned", False)
        return {"feed_forward": "fff", "hidden_act": ACTIVATIONS[name], "pruned": pruned, **sizes}
    name = arch.choice("nonlin", [*ACTIVATIONS, *gated], "GELU")
    width = arch.get("intermed_size", None)
    if name not in gated:
        return {"feed_forward": "dense", "hidden_act": ACTIVATIONS[name], "intermediate_size": width}
    if isinstance(width, int) and width % 2:
        raise arch.error("intermed_size", f"an even width for the gated {name}", width)
    return {"feed_forward": "gated", "hidden_act": gated[name], "intermediate_size": width}


def _classification_head(head: Options, hidden_size: int) -> ClassificationHeadConfig | None:
    if not head.values:
        return None
    include_ff_layer = head.flag("include_ff_layer", True)
    # The head's nonlinearity is never gated: its name counts without "glu".
    names = {name + suffix: act for suffix in ("", "glu") for name, act in ACTIVATIONS.items()}
    return ClassificationHeadConfig(
        pooler=head.choice("pooler", POOLERS, "zero_index"),
        include_ff_layer=include_ff_layer,
        head_dim=head.get("head_dim", hidden_size),
        activation=names[head.choice("nonlin", names, "Tanh")],
    )


FAMILY = Family(
    tasks={
        "ScriptableLM": "base",
        "ScriptableLMForPreTraining": "masked-lm",
        "ScriptableLMForSequenceClassification": "sequence-classification",
    },
    read=read,
    tokenizer="PreTrainedTokenizer",
    prefix="encoder.",
    encoder={
        "word_embeddings": "embedding.word_embedding",
        "position_embeddings": "embedding.pos_embedding.embedding",
        "position_scale": "embedding.pos_embedding.scale_factor",
        "embedding_norm": "embedding.norm",
        # (3H, ...): for each head, its query, key and value rows
        "query_key_value": "layers.{layer}.attn.self_attention.query_key_value",
        "attention_scale": "layers.{layer}.attn.self_attention.norm_factor",
        "attention_output": "layers.{layer}.attn.dense",
        "norm1": "layers.{layer}.norm1",
        "feed_forward_in": "layers.{layer}.ffn.dense_in",
        "feed_forward_out": "layers.{layer}.ffn.dense_out",
        "fff_in": "layers.{layer}.ffn.linear_in",
        "fff_out": "layers.{layer}.ffn.linear_out",
        "fff_nodes": "layers.{layer}.ffn." + FFF_NODES,
        "fff_columns": "layers.{layer}.ffn." + FFF_COLUMNS,
        "norm2": "layers.{layer}.norm2",
        "final_norm": "final_norm",
    },
    head={
        "lm_dense": "prediction_head.dense",
        "lm_norm": "prediction_head.norm",
        "lm_decoder": "decoder",
        "lm_bias": "decoder.bias",
        "classifier_dense": "pooler.dense",
        "classifier": "head",
    },
    ignored=(
        r"embedding\.pos_embedding\.(position_ids|pe)",
        r"layers\.\d+\.attn\.self_attention\.norm_factor",
        r"decoder\.weight",
    ),
)
