"""How checkpoints spell the tensors: one table for each family. Nothing else knows a checkpoint's spelling.

A value is a tensor's name, or for layers and norms the stem before ``.weight`` and ``.bias``; ``{layer}`` is the
layer's number. Names of the encoder come behind the family's prefix where the checkpoint has a head.
"""

from __future__ import annotations

from collections.abc import Container

__all__ = ["ENCODER", "HEAD", "HEADS", "IGNORED", "PREFIX", "spelling"]

PREFIX = {"bert": "bert.", "crammed": "encoder."}
"""What stands before an encoder's names where the checkpoint also has a head."""

ENCODER = {
    "bert": {
        "word_embeddings": "embeddings.word_embeddings.weight",
        "position_embeddings": "embeddings.position_embeddings.weight",
        "token_type_embeddings": "embeddings.token_type_embeddings.weight",
        "embedding_norm": "embeddings.LayerNorm",
        "query": "encoder.layer.{layer}.attention.self.query",
        "key": "encoder.layer.{layer}.attention.self.key",
        "value": "encoder.layer.{layer}.attention.self.value",
        "attention_output": "encoder.layer.{layer}.attention.output.dense",
        "norm1": "encoder.layer.{layer}.attention.output.LayerNorm",
        "feed_forward_in": "encoder.layer.{layer}.intermediate.dense",
        "feed_forward_out": "encoder.layer.{layer}.output.dense",
        "fff_in": "encoder.layer.{layer}.ffn.linear_in",
        "fff_out": "encoder.layer.{layer}.ffn.linear_out.weight",
        "fff_out_bias": "encoder.layer.{layer}.ffn.linear_out.bias",
        "fff_nodes": "encoder.layer.{layer}.ffn.nodes",  # only of a pruned model
        "norm2": "encoder.layer.{layer}.output.LayerNorm",
        "pooler": "pooler.dense",
    },
    "crammed": {
        "word_embeddings": "embedding.word_embedding.weight",
        "position_embeddings": "embedding.pos_embedding.embedding.weight",
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
        "fff_out": "layers.{layer}.ffn.linear_out.weight",
        "fff_nodes": "layers.{layer}.ffn.nodes",
        "norm2": "layers.{layer}.norm2",
        "final_norm": "final_norm",
    },
}

HEAD = {
    "bert": {
        "lm_dense": "cls.predictions.transform.dense",
        "lm_norm": "cls.predictions.transform.LayerNorm",
        "lm_decoder": "cls.predictions.decoder.weight",
        "lm_bias": "cls.predictions.bias",
        "lm_untied_bias": "cls.predictions.decoder.bias",
        "classifier": "classifier",
        "question_answering": "qa_outputs",
    },
    "crammed": {
        "lm_dense": "prediction_head.dense",
        "lm_norm": "prediction_head.norm",
        "lm_decoder": "decoder.weight",
        "lm_bias": "decoder.bias",
        "lm_untied_bias": "decoder.bias",
        "classifier_dense": "pooler.dense",
        "classifier": "head",
    },
}

IGNORED = {
    # Constant buffers; the decoder stored again although it is tied; heads that BERT was pretrained with and its
    # fine-tuned classes leave unused.
    "bert": (
        r"(bert\.)?embeddings\.(position_ids|token_type_ids)",
        r"cls\.predictions\.(bias|decoder\.weight|decoder\.bias)",
        r"cls\.seq_relationship\.(weight|bias)",
        r"(bert\.)?pooler\.dense\.(weight|bias)",
    ),
    "crammed": (
        r"(encoder\.)?embedding\.pos_embedding\.(position_ids|pe)",
        r"(encoder\.)?layers\.\d+\.attn\.self_attention\.norm_factor",
        r"decoder\.weight",
    ),
}
"""Patterns of tensors that may be there without being used."""

HEADS = {
    "bert": r"cls\..*|classifier\..*|qa_outputs\..*",
    "crammed": r"decoder\..*|prediction_head\..*|pooler\..*|head\..*",
}
"""Patterns of all heads' tensors: left unused where only the encoder is wanted."""


def spelling(family: str, tensors: Container[str]) -> dict[str, str]:
    """Names of a checkpoint with these tensors, by our keys: with the prefix where the encoder's have it."""
    names = ENCODER[family]
    prefix = "" if names["word_embeddings"] in tensors else PREFIX[family]
    return {key: prefix + name for key, name in names.items()} | HEAD[family]
