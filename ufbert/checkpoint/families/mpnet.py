"""MPNet, as Hugging Face's transformers store it: BERT with a bias of the attention by distance. arXiv 2004.09297."""

from __future__ import annotations

from typing import Any

from ...activations import HUGGING_FACE
from ...config import ModelConfig
from ..options import Options
from . import bert, roberta
from .family import Family, written

__all__ = ["BUCKETS", "FAMILY"]

BUCKETS, FIRST_POSITION = 32, 2  # constants in transformers' code, whatever config.json says
KEYS = {key: spelling for key, spelling in bert.KEYS.items() if key not in ("type_vocab_size", "pad_token_id")} | {
    "vocab_size": ("vocab_size", 30527),
    "intermediate_size": ("intermediate_size", 3072),
    "pad_token_id": ("pad_token_id", 1),
}


def read(top: Options, task: str) -> ModelConfig:
    """Read a ``config.json`` of MPNet."""
    act = HUGGING_FACE[top.choice("hidden_act", HUGGING_FACE, "gelu")]
    top.refuse_unless("relative_attention_num_buckets", (BUCKETS, None), BUCKETS)
    return ModelConfig(
        family="mpnet",
        task=task,
        hidden_act=act,
        lm_act="gelu",
        first_position=FIRST_POSITION,
        distance_buckets=BUCKETS,
        **bert.read_encoder(top, KEYS),
    )


def write(config: ModelConfig) -> dict[str, Any]:
    """Write a ``config.json`` of MPNet."""
    return {"model_type": "mpnet", **written(config, FAMILY, KEYS, "hidden_act")}


FAMILY = Family(
    tasks={
        "MPNetModel": "base",
        "MPNetForMaskedLM": "masked-lm",
        "MPNetForSequenceClassification": "sequence-classification",
        "MPNetForTokenClassification": "token-classification",
        "MPNetForQuestionAnswering": "question-answering",
    },
    encoders=("MPNetForMultipleChoice",),
    tokenizer="MPNetTokenizer",
    read=read,
    write=write,
    prefix="mpnet.",
    encoder={
        **{key: name for key, name in bert.FAMILY.encoder.items() if key != "token_type_embeddings"},
        "distance_bias": "encoder.relative_attention_bias",
        "query": "encoder.layer.{layer}.attention.attn.q",
        "key": "encoder.layer.{layer}.attention.attn.k",
        "value": "encoder.layer.{layer}.attention.attn.v",
        "attention_output": "encoder.layer.{layer}.attention.attn.o",
        "norm1": "encoder.layer.{layer}.attention.LayerNorm",
    },
    head=roberta.FAMILY.head,
    ignored=roberta.FAMILY.ignored,
)
