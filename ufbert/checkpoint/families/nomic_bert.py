"""NomicBERT, as nomic-ai and Hugging Face's transformers store it: rotary positions and gated layers.

arXiv 2402.01613.
"""

from __future__ import annotations

from typing import Any

from ...activations import HUGGING_FACE
from ...config import ClassificationHeadConfig, ModelConfig
from ..options import Options
from . import bert
from .family import Family, base_of_rotations, labels, twice

__all__ = ["FAMILY"]

GATED = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}
# What the authors' own code knows besides, with the only value that is supported.
FIXED: dict[str, object] = {
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "use_rms_norm": False,
}


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of NomicBERT, in transformers' words or in its authors'."""
    sizes = _authors(top) if "n_embd" in top.values else _transformers(top)
    width = sizes["hidden_size"]
    return ModelConfig(
        family="nomic_bert",
        task=task,
        type_vocab_size=top.get("type_vocab_size", 2),
        vocab_size=top.get("vocab_size", 30528),
        pad_token_id=top.get("pad_token_id", 0),
        tie_word_embeddings=top.flag("tie_word_embeddings", True),
        position_embedding="rotary",
        qkv_bias=False,
        linear_bias=False,
        feed_forward="gated",
        classification_head=ClassificationHeadConfig("zero_index", True, width, "tanh"),
        **sizes,
        **labels(top),
    )


def _authors(top: Options) -> dict[str, Any]:
    for key, value in FIXED.items():
        top.refuse_unless(key, (value,), value)
    inner, positions = top.get("n_inner", None), top.get("n_positions", 2048)
    inner = 4 * top.get("n_embd", 768) if inner is None else inner
    trained = top.get("max_trained_positions", positions)  # beyond them, their code changes the wavelengths
    if isinstance(positions, int) and isinstance(trained, int):
        positions = min(positions, trained)
    return {
        "hidden_size": top.get("n_embd", 768),
        "num_hidden_layers": top.get("n_layer", 12),
        "num_attention_heads": top.get("n_head", 12),
        "intermediate_size": twice(inner),
        "hidden_act": GATED[top.choice("activation_function", GATED, "swiglu")],
        "layer_norm_eps": top.number("layer_norm_epsilon", 1e-12),
        "max_position_embeddings": positions,
        "rotary_base": base_of_rotations(top, "rotary_emb_base", 1000.0),
    }


def _transformers(top: Options) -> dict[str, Any]:
    rotary = top.section("rope_parameters")
    rotary.refuse_unless("rope_type", ("default",), "default")
    hidden, heads = top.get("hidden_size", 768), top.get("num_attention_heads", 12)
    if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        top.refuse_unless("head_dim", (hidden // heads, None), hidden // heads)
    return {
        "hidden_size": hidden,
        "num_hidden_layers": top.get("num_hidden_layers", 12),
        "num_attention_heads": heads,
        "intermediate_size": twice(top.get("intermediate_size", 3072)),
        "hidden_act": HUGGING_FACE[top.choice("hidden_act", HUGGING_FACE, "silu")],
        "layer_norm_eps": top.number("layer_norm_eps", 1e-12),
        "max_position_embeddings": top.get("max_position_embeddings", 2048),
        "rotary_base": base_of_rotations(rotary, "rope_theta", 1000.0),
    }


FAMILY = Family(
    tasks={
        "NomicBertModel": "base",
        "NomicBertForMaskedLM": "masked-lm",
        "NomicBertForSequenceClassification": "sequence-classification",
        "NomicBertForTokenClassification": "token-classification",
    },
    read=read,
    prefix="nomic_bert.",
    encoder={
        "word_embeddings": "embeddings.word_embeddings",
        "token_type_embeddings": "embeddings.token_type_embeddings",
        "embedding_norm": "emb_ln",
        "queries_keys_values": "encoder.layers.{layer}.attn.Wqkv",
        "attention_output": "encoder.layers.{layer}.attn.out_proj",
        "norm1": "encoder.layers.{layer}.norm1",
        "feed_forward_value": "encoder.layers.{layer}.mlp.fc11",
        "feed_forward_gate": "encoder.layers.{layer}.mlp.fc12",
        "feed_forward_out": "encoder.layers.{layer}.mlp.fc2",
        "norm2": "encoder.layers.{layer}.norm2",
        "pooler": "pooler.dense",
    },
    head={**bert.FAMILY.head, "lm_norm": "cls.predictions.transform.layer_norm"},
    ignored=(
        r".*\.(inv_freq|original_inv_freq)",
        r"embeddings\.(position_ids|token_type_ids)",
        r"pooler\.dense\.(weight|bias)",
        r"cls\.predictions\.(bias|decoder\.weight|decoder\.bias)",
    ),
)
