"""``config.json`` to `ModelConfig`. An option that is not supported is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import reference
from ..config import LIMITS, ClassificationHeadConfig, ModelConfig, check_size
from ..errors import CheckpointError, shown
from .options import Options

__all__ = ["parse_config"]

BERT_TASKS = {
    "BertModel": "base",
    "BertForPreTraining": "masked-lm",
    "BertForMaskedLM": "masked-lm",
    "BertForSequenceClassification": "sequence-classification",
    "BertForTokenClassification": "token-classification",
    "BertForQuestionAnswering": "question-answering",
}
CRAMMED_TASKS = {
    "ScriptableLM": "base",
    "ScriptableLMForPreTraining": "masked-lm",
    "ScriptableLMForSequenceClassification": "sequence-classification",
}
BERT_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "mish": "mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "identity",
}
# Those that the FFF kernels know.
FFF_ACTIVATIONS = {name: act for name, act in BERT_ACTIVATIONS.items() if act in reference.ACTIVATIONS}
CRAMMED_ACTIVATIONS = {"GELU": "gelu", "ReLU": "relu", "SiLU": "silu", "Tanh": "tanh"}
CRAMMED_NORMS = {"LayerNorm": "layer_norm", "RMSNorm": "rms_norm", "ScaleNorm": "scale_norm"}
CRAMMED_POSITIONS = {
    "learned": "learned",
    "sinusoidal": "sinusoidal",
    "scaled-sinusoidal": "scaled-sinusoidal",
    None: "none",
}
POOLERS = ("zero_index", "avg", "max", "lse")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


def parse_config(data: Mapping[str, Any], encoder_only: bool = False) -> ModelConfig:
    """Read a ``config.json``.

    Parameters
    ----------
    data : mapping
        The parsed file.
    encoder_only : bool
        Take any known architecture as its bare encoder.

    Raises
    ------
    CheckpointError
        If the architecture or an option is unknown, or a value is out of its range.
    """
    top = Options(data, "config.json")
    architectures = top.get("architectures", [])
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise top.error("architectures", "a list of names", architectures)
    architecture = architectures[0] if architectures else None
    model_type = top.get("model_type", "bert" if architecture in BERT_TASKS else None)
    parsers = {"bert": _bert, "ufbert": _ufbert, "crammedBERT": _crammed}
    if not isinstance(model_type, str) or model_type not in parsers:
        raise CheckpointError(
            f"config.json: model_type: expected one of {', '.join(parsers)}, found {shown(model_type)} "
            f"(architecture {architecture}); ufbert runs BERT, BERT with FFF layers and crammedBERT/UltraFastBERT only"
        )
    return parsers[model_type](top, architecture, encoder_only)


def _task(top: Options, tasks: Mapping[str, str], architecture: str | None, encoder_only: bool) -> str:
    if encoder_only or architecture is None:
        return "base"
    if architecture not in tasks:
        raise top.error("architectures", "one of " + ", ".join(tasks), architecture)
    return tasks[architecture]


def _bert(
    top: Options, architecture: str | None, encoder_only: bool, feed_forward: dict[str, Any] | None = None
) -> ModelConfig:
    top.refuse_unless("position_embedding_type", ("absolute", None), "absolute")
    top.refuse_unless("is_decoder", (False, None), False)
    top.refuse_unless("add_cross_attention", (False, None), False)
    labels = _labels(top)
    return ModelConfig(
        family="bert",
        task=_task(top, BERT_TASKS, architecture, encoder_only),
        vocab_size=top.get("vocab_size", 30522),
        hidden_size=top.get("hidden_size", 768),
        num_hidden_layers=top.get("num_hidden_layers", 12),
        num_attention_heads=top.get("num_attention_heads", 12),
        layer_norm_eps=top.number("layer_norm_eps", 1e-12),
        max_position_embeddings=top.get("max_position_embeddings", 512),
        type_vocab_size=top.get("type_vocab_size", 2),
        tie_word_embeddings=top.flag("tie_word_embeddings", True),
        pad_token_id=top.get("pad_token_id", 0),
        num_labels=len(labels) or top.get("num_labels", 2),
        id2label=labels,
        problem_type=top.choice("problem_type", (None, *PROBLEM_TYPES), None),
        **(feed_forward or _bert_feed_forward(top)),
    )


def _bert_feed_forward(top: Options) -> dict[str, Any]:
    act = top.choice("hidden_act", BERT_ACTIVATIONS, "gelu")
    return {"hidden_act": BERT_ACTIVATIONS[act], "intermediate_size": top.get("intermediate_size", 3072)}


def _ufbert(top: Options, architecture: str | None, encoder_only: bool) -> ModelConfig:
    """BERT with FFF layers: its keys and classes, under a model_type that transformers refuses to guess at."""
    if top.choice("feed_forward", ("fff", "dense"), None) == "dense":
        return _bert(top, architecture, encoder_only)
    act = top.choice("hidden_act", FFF_ACTIVATIONS, "gelu")
    feed_forward = {
        "feed_forward": "fff",
        "hidden_act": FFF_ACTIVATIONS[act],
        "num_trees": top.get("num_trees", None),
        "depth": top.get("depth", None),
        "output_bias": top.flag("output_bias", False),
        "pruned": top.flag("pruned", False),
    }
    return _bert(top, architecture, encoder_only, feed_forward)


def _crammed(top: Options, architecture: str | None, encoder_only: bool) -> ModelConfig:
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
    labels = _labels(top)
    use_bias = arch.flag("use_bias", True)
    return ModelConfig(
        family="crammed",
        task=_task(top, CRAMMED_TASKS, architecture, encoder_only),
        vocab_size=embedding.get("vocab_size", None),
        hidden_size=hidden_size,
        num_hidden_layers=arch.get("num_transformer_layers", None),
        num_attention_heads=attention.get("num_attention_heads", None),
        layer_norm_eps=arch.number("norm_eps", 1e-12),
        max_position_embeddings=embedding.get("max_seq_length", None),
        position_embedding=CRAMMED_POSITIONS[embedding.choice("pos_embedding", CRAMMED_POSITIONS, None)],
        embedding_norm=embedding.flag("normalization", True),
        norm=CRAMMED_NORMS[arch.choice("norm", CRAMMED_NORMS, "LayerNorm")],
        norm_position="pre",
        final_norm=arch.flag("final_norm", True),
        qkv_bias=attention.flag("qkv_bias", False),
        linear_bias=use_bias,
        output_projection=not attention.flag("skip_output_projection", False),
        lm_transform=not arch.flag("skip_head_transform", False),
        decoder_bias=arch.flag("decoder_bias", True),
        tie_word_embeddings=arch.flag("tie_weights", True),
        pad_token_id=embedding.get("pad_token_id", 0),
        num_labels=len(labels) or arch.get("num_labels", 2),
        id2label=labels,
        problem_type=top.choice("problem_type", (None, *PROBLEM_TYPES), None),
        classification_head=_classification_head(arch.section("classification_head"), hidden_size),
        **_crammed_feed_forward(top, arch),
    )


def _crammed_feed_forward(top: Options, arch: Options) -> dict[str, Any]:
    kind = arch.choice("intermed_type", ("ff", "fff", None), None)
    gated = {name + "glu": act for name, act in CRAMMED_ACTIVATIONS.items()}
    if kind == "fff":
        name = arch.choice("nonlin", CRAMMED_ACTIVATIONS, "GELU")
        sizes = {"num_trees": arch.get("intermed_size", None), "depth": arch.get("intermed_depth", None)}
        pruned = top.flag("pruned", False)
        return {"feed_forward": "fff", "hidden_act": CRAMMED_ACTIVATIONS[name], "pruned": pruned, **sizes}
    name = arch.choice("nonlin", [*CRAMMED_ACTIVATIONS, *gated], "GELU")
    width = arch.get("intermed_size", None)
    if name not in gated:
        return {"feed_forward": "dense", "hidden_act": CRAMMED_ACTIVATIONS[name], "intermediate_size": width}
    if isinstance(width, int) and width % 2:
        raise arch.error("intermed_size", f"an even width for the gated {name}", width)
    return {"feed_forward": "gated", "hidden_act": gated[name], "intermediate_size": width}


def _classification_head(head: Options, hidden_size: Any) -> ClassificationHeadConfig | None:
    if not head.values:
        return None
    include_ff_layer = head.flag("include_ff_layer", True)
    # The head's nonlinearity is never gated: its name counts without "glu".
    names = {name + suffix: act for suffix in ("", "glu") for name, act in CRAMMED_ACTIVATIONS.items()}
    return ClassificationHeadConfig(
        pooler=head.choice("pooler", POOLERS, "zero_index"),
        include_ff_layer=include_ff_layer,
        head_dim=head.get("head_dim", hidden_size),
        activation=names[head.choice("nonlin", names, "Tanh")],
    )


def _labels(top: Options) -> dict[int, str]:
    labels = top.section("id2label").values
    numbers = {str(index): index for index in range(len(labels))}
    if set(labels) != set(numbers) or not all(isinstance(label, str) for label in labels.values()):
        raise top.error("id2label", "the numbers from 0 without gaps, each with a name", labels)
    return {index: labels[key] for key, index in numbers.items()}
