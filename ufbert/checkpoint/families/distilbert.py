"""DistilBERT, as Hugging Face's transformers store it: BERT without token types and pooler. arXiv 1910.01108."""

from __future__ import annotations

from typing import Any

from ...activations import HUGGING_FACE
from ...config import ClassificationHeadConfig, ModelConfig
from ..options import Options
from .family import Family, labels, read_keys, written

__all__ = ["FAMILY"]

KEYS = {
    "vocab_size": ("vocab_size", 30522),
    "hidden_size": ("dim", 768),
    "num_hidden_layers": ("n_layers", 6),
    "num_attention_heads": ("n_heads", 12),
    "intermediate_size": ("hidden_dim", 3072),
    "max_position_embeddings": ("max_position_embeddings", 512),
    "pad_token_id": ("pad_token_id", 0),
    "tie_word_embeddings": ("tie_word_embeddings", True),
}


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of DistilBERT. Positions are a table in the file, also where they are sinusoidal."""
    act = top.choice("activation", HUGGING_FACE, "gelu")
    top.flag("tie_word_embeddings", True)
    fields = read_keys(top, KEYS)
    return ModelConfig(
        family="distilbert",
        task=task,
        hidden_act=HUGGING_FACE[act],
        layer_norm_eps=1e-12,
        classification_head=ClassificationHeadConfig("zero_index", True, fields["hidden_size"], "relu"),
        **fields,
        **labels(top),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Write a ``config.json`` of DistilBERT."""
    return {"model_type": "distilbert", **written(config, FAMILY, KEYS, "activation")}


FAMILY = Family(
    tasks={
        "DistilBertModel": "base",
        "DistilBertForMaskedLM": "masked-lm",
        "DistilBertForSequenceClassification": "sequence-classification",
        "DistilBertForTokenClassification": "token-classification",
        "DistilBertForQuestionAnswering": "question-answering",
    },
    encoders=("DistilBertForMultipleChoice",),
    tokenizer="DistilBertTokenizer",
    read=read,
    write=write,
    prefix="distilbert.",
    encoder={
        "word_embeddings": "embeddings.word_embeddings",
        "position_embeddings": "embeddings.position_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "query": "transformer.layer.{layer}.attention.q_lin",
        "key": "transformer.layer.{layer}.attention.k_lin",
        "value": "transformer.layer.{layer}.attention.v_lin",
        "attention_output": "transformer.layer.{layer}.attention.out_lin",
        "norm1": "transformer.layer.{layer}.sa_layer_norm",
        "feed_forward_in": "transformer.layer.{layer}.ffn.lin1",
        "feed_forward_out": "transformer.layer.{layer}.ffn.lin2",
        "norm2": "transformer.layer.{layer}.output_layer_norm",
    },
    head={
        "lm_dense": "vocab_transform",
        "lm_norm": "vocab_layer_norm",
        "lm_decoder": "vocab_projector",
        "lm_bias": "vocab_projector.bias",
        "classifier_dense": "pre_classifier",
        "classifier": "classifier",
        "question_answering": "qa_outputs",
    },
    ignored=(r"embeddings\.position_ids", r"vocab_projector\.weight"),
)
