"""ELECTRA, as Hugging Face's transformers store it: BERT with narrow embeddings and other heads. arXiv 2003.10555.

Of a discriminator the encoder is used; its own head only tells replaced tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...activations import HUGGING_FACE
from ...config import ModelConfig
from ..options import Options
from . import bert
from .family import Family, written

__all__ = ["FAMILY"]

KEYS = bert.KEYS | {
    "hidden_size": ("hidden_size", 256),
    "num_attention_heads": ("num_attention_heads", 4),
    "intermediate_size": ("intermediate_size", 1024),
    "embedding_size": ("embedding_size", 128),
}


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of ELECTRA."""
    act = HUGGING_FACE[top.choice("hidden_act", HUGGING_FACE, "gelu")]
    fields = bert.read_encoder(top, KEYS)
    fields["classification_head"] = replace(fields["classification_head"], activation="gelu")
    return ModelConfig(family="electra", task=task, hidden_act=act, lm_act="gelu", **fields)


def write(config: ModelConfig) -> dict[str, Any]:
    """Write a ``config.json`` of ELECTRA."""
    return {"model_type": "electra", **written(config, FAMILY, KEYS, "hidden_act")}


FAMILY = Family(
    tasks={
        "ElectraModel": "base",
        "ElectraForPreTraining": "base",
        "ElectraForMaskedLM": "masked-lm",
        "ElectraForSequenceClassification": "sequence-classification",
        "ElectraForTokenClassification": "token-classification",
        "ElectraForQuestionAnswering": "question-answering",
    },
    encoders=("ElectraForMultipleChoice", "ElectraForCausalLM"),
    tokenizer="ElectraTokenizer",
    read=read,
    write=write,
    prefix="electra.",
    encoder={
        **{key: name for key, name in bert.FAMILY.encoder.items() if key != "pooler"},
        "embedding_projection": "embeddings_project",
    },
    head={
        "lm_dense": "generator_predictions.dense",
        "lm_norm": "generator_predictions.LayerNorm",
        "lm_decoder": "generator_lm_head",
        "lm_bias": "generator_lm_head.bias",
        "classifier_dense": "classifier.dense",
        "classifier": "classifier.out_proj",
        "token_classifier": "classifier",
        "question_answering": "qa_outputs",
    },
    ignored=(
        r"embeddings\.(position_ids|token_type_ids)",
        r"generator_lm_head\.weight",
        r"discriminator_predictions\.(dense|dense_prediction)\.(weight|bias)",
    ),
)
