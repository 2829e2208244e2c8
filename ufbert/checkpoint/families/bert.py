"""BERT, as Hugging Face's transformers store it. arXiv 1810.04805."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...activations import HUGGING_FACE
from ...config import ClassificationHeadConfig, ModelConfig
from ..options import Options
from .family import Family, labels, read_keys, written

__all__ = ["FAMILY", "KEYS", "read_encoder"]

KEYS = {
    "vocab_size": ("vocab_size", 30522),
    "hidden_size": ("hidden_size", 768),
    "num_hidden_layers": ("num_hidden_layers", 12),
    "num_attention_heads": ("num_attention_heads", 12),
    "max_position_embeddings": ("max_position_embeddings", 512),
    "type_vocab_size": ("type_vocab_size", 2),
    "pad_token_id": ("pad_token_id", 0),
    "layer_norm_eps": ("layer_norm_eps", 1e-12),
    "tie_word_embeddings": ("tie_word_embeddings", True),
}
"""Fields of `ModelConfig` by the keys of ``config.json``, with their defaults there."""


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of BERT."""
    act = top.choice("hidden_act", HUGGING_FACE, "gelu")
    width = top.get("intermediate_size", 3072)
    return ModelConfig(
        family="bert", task=task, hidden_act=HUGGING_FACE[act], intermediate_size=width, **read_encoder(top)
    )


def read_encoder(top: Options, keys: Mapping[str, tuple[str, Any]] = KEYS) -> dict[str, Any]:
    """Read the fields of `keys`, the heads' settings, and refuse what only some checkpoints of BERT's kind have."""
    top.refuse_unless("position_embedding_type", ("absolute", None), "absolute")
    top.refuse_unless("is_decoder", (False, None), False)
    top.refuse_unless("add_cross_attention", (False, None), False)
    top.number("layer_norm_eps", 1e-12)
    top.flag("tie_word_embeddings", True)
    fields = read_keys(top, keys)
    head = ClassificationHeadConfig("zero_index", True, fields["hidden_size"], "tanh")
    return fields | labels(top) | {"classification_head": head}


def write(config: ModelConfig) -> dict[str, Any]:
    """Write the ``config.json`` of a BERT with dense feed-forward layers."""
    settings = {"model_type": "bert", **written(config, FAMILY, KEYS, "hidden_act")}
    return settings | {"intermediate_size": config.intermediate_size}


FAMILY = Family(
    tasks={
        "BertModel": "base",
        "BertForMaskedLM": "masked-lm",
        "BertForPreTraining": "masked-lm",
        "BertForSequenceClassification": "sequence-classification",
        "BertForTokenClassification": "token-classification",
        "BertForQuestionAnswering": "question-answering",
    },
    encoders=("BertForNextSentencePrediction", "BertForMultipleChoice", "BertLMHeadModel"),
    read=read,
    write=write,
    prefix="bert.",
    encoder={
        "word_embeddings": "embeddings.word_embeddings",
        "position_embeddings": "embeddings.position_embeddings",
        "token_type_embeddings": "embeddings.token_type_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "query": "encoder.layer.{layer}.attention.self.query",
        "key": "encoder.layer.{layer}.attention.self.key",
        "value": "encoder.layer.{layer}.attention.self.value",
        "attention_output": "encoder.layer.{layer}.attention.output.dense",
        "norm1": "encoder.layer.{layer}.attention.output.LayerNorm",
        "feed_forward_in": "encoder.layer.{layer}.intermediate.dense",
        "feed_forward_out": "encoder.layer.{layer}.output.dense",
        "norm2": "encoder.layer.{layer}.output.LayerNorm",
        "pooler": "pooler.dense",
    },
    head={
        "lm_dense": "cls.predictions.transform.dense",
        "lm_norm": "cls.predictions.transform.LayerNorm",
        "lm_decoder": "cls.predictions.decoder",
        "lm_bias": "cls.predictions.bias",
        "classifier": "classifier",
        "question_answering": "qa_outputs",
    },
    # Constant buffers; the decoder stored again although it is tied; heads that BERT was pretrained with and its
    # fine-tuned classes leave unused.
    ignored=(
        r"embeddings\.(position_ids|token_type_ids)",
        r"pooler\.dense\.(weight|bias)",
        r"cls\.predictions\.(bias|decoder\.weight|decoder\.bias)",
        r"cls\.seq_relationship\.(weight|bias)",
    ),
)
