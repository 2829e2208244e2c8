"""ModernBERT, as Hugging Face's transformers store it: rotary positions, gated layers, a window in most layers.

arXiv 2412.13663.
"""

from __future__ import annotations

from typing import Any

from ...activations import HUGGING_FACE
from ...config import ClassificationHeadConfig, ModelConfig
from ..options import Options
from .family import Family, base_of_rotations, labels, twice

__all__ = ["FAMILY"]

POOLERS = {"cls": "zero_index", "mean": "mean"}
KINDS = ("full_attention", "sliding_attention")
# How transformers computes what the file asks for; none of them changes what it gives.
HOW = ("deterministic_flash_attn", "sparse_prediction", "repad_logits_with_grad")


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of ModernBERT."""
    for key in HOW:
        top.flag(key, False)
    width = top.get("hidden_size", 768)
    activation = HUGGING_FACE[top.choice("classifier_activation", HUGGING_FACE, "gelu")]
    pooler = POOLERS[top.choice("classifier_pooling", POOLERS, "cls")]
    head_bias, bias = top.flag("classifier_bias", False), top.flag("attention_bias", False)
    top.refuse_unless("mlp_bias", (bias,), bias)  # a model has all of them or none
    return ModelConfig(
        family="modernbert",
        task=task,
        hidden_act=HUGGING_FACE[top.choice("hidden_activation", HUGGING_FACE, "gelu")],
        layer_norm_eps=top.number("norm_eps", 1e-5),
        tie_word_embeddings=top.flag("tie_word_embeddings", True),
        position_embedding="rotary",
        norm_position="pre",
        norm_bias=top.flag("norm_bias", False),
        first_norm=False,
        final_norm=True,
        qkv_bias=bias,
        linear_bias=bias,
        feed_forward="gated",
        window=_window(top),
        lm_act=activation,
        lm_bias=head_bias,
        decoder_bias=top.flag("decoder_bias", True),
        token_transform=True,
        classification_head=ClassificationHeadConfig(pooler, True, width, activation, norm=True),
        **_sizes(top),
        **_bases(top),
        **labels(top),
    )


def _sizes(top: Options) -> dict[str, Any]:
    layers = top.get("num_hidden_layers", 22)
    return {
        "vocab_size": top.get("vocab_size", 50368),
        "hidden_size": top.get("hidden_size", 768),
        "num_hidden_layers": layers,
        "num_attention_heads": top.get("num_attention_heads", 12),
        "intermediate_size": twice(top.get("intermediate_size", 1152)),
        "max_position_embeddings": top.get("max_position_embeddings", 8192),
        "pad_token_id": top.get("pad_token_id", 50283),
        "windowed_layers": _windowed(top, layers),
    }


def _window(top: Options) -> int:
    """How far a token sees to each side: half of what the file has for both."""
    value = top.integer("local_attention", 1)
    return (128 if value is None else value) // 2


def _windowed(top: Options, layers: object) -> tuple[bool, ...]:
    """Which layers see a window: a list of transformers 5, or one layer in so many that sees all."""
    if not isinstance(layers, int):
        return ()  # refused by its own name
    kinds = top.get("layer_types", None)
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in KINDS for kind in kinds):
            raise top.error("layer_types", f"{layers} of {', '.join(KINDS)}, one for each layer", kinds)
        return tuple(kind == KINDS[1] for kind in kinds)
    every = top.integer("global_attn_every_n_layers", 1)
    return tuple(bool(index % (3 if every is None else every)) for index in range(min(layers, 1_024)))


def _bases(top: Options) -> dict[str, Any]:
    """Of the wavelengths in layers that see all, and in those that see a window."""
    top.refuse_unless("rope_scaling", (None,), None)
    both = top.section("rope_parameters")
    full, near = (both.section(kind) for kind in KINDS)
    for part in (full, near):
        part.refuse_unless("rope_type", ("default",), "default")
    whole = base_of_rotations(top, "global_rope_theta", 160_000.0)
    local = top.values.get("local_rope_theta", 10_000.0)  # null is that of the others
    local = whole if local is None else base_of_rotations(top, "local_rope_theta", 10_000.0)
    return {
        "rotary_base": base_of_rotations(full, "rope_theta", whole),
        "window_rotary_base": base_of_rotations(near, "rope_theta", local),
    }


FAMILY = Family(
    tasks={
        "ModernBertModel": "base",
        "ModernBertForMaskedLM": "masked-lm",
        "ModernBertForSequenceClassification": "sequence-classification",
        "ModernBertForTokenClassification": "token-classification",
        "ModernBertForQuestionAnswering": "question-answering",
    },
    encoders=("ModernBertForMultipleChoice",),
    tokenizer="PreTrainedTokenizerFast",
    read=read,
    prefix="model.",
    encoder={
        "word_embeddings": "embeddings.tok_embeddings",
        "embedding_norm": "embeddings.norm",
        "queries_keys_values": "layers.{layer}.attn.Wqkv",
        "attention_output": "layers.{layer}.attn.Wo",
        "norm1": "layers.{layer}.attn_norm",
        "feed_forward_gates_values": "layers.{layer}.mlp.Wi",
        "feed_forward_out": "layers.{layer}.mlp.Wo",
        "norm2": "layers.{layer}.mlp_norm",
        "final_norm": "final_norm",
    },
    head={
        "lm_dense": "head.dense",
        "lm_norm": "head.norm",
        "lm_decoder": "decoder",
        "lm_bias": "decoder.bias",
        "classifier": "classifier",
    },
    ignored=(r".*\.\w*inv_freq", r"decoder\.weight"),
)
