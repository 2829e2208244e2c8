"""RoBERTa, as Hugging Face's transformers store it: BERT with other heads, and with positions behind the padding id.

arXiv 1907.11692.
"""

from __future__ import annotations

from typing import Any

from ...activations import HUGGING_FACE
from ...config import ModelConfig
from ..options import Options
from . import bert
from .family import Family, written

__all__ = ["FAMILY", "family"]

KEYS = bert.KEYS | {
    "vocab_size": ("vocab_size", 50265),
    "intermediate_size": ("intermediate_size", 3072),
    "pad_token_id": ("pad_token_id", 1),
}


def family(name: str, model_type: str, classes: str, tokenizer: str) -> Family:
    """Describe RoBERTa, or an architecture that is RoBERTa under another name.

    Parameters
    ----------
    name, model_type : str
        Its module in this folder, and its name in ``config.json``.
    classes : str
        How the names of its classes begin.
    tokenizer : str
        Class of its tokenizer.
    """

    def read(top: Options, task: str) -> ModelConfig:
        act = HUGGING_FACE[top.choice("hidden_act", HUGGING_FACE, "gelu")]
        fields = bert.read_encoder(top, KEYS)
        padding = fields["pad_token_id"]
        first = padding + 1 if isinstance(padding, int) else 0  # ModelConfig refuses other paddings
        return ModelConfig(family=name, task=task, hidden_act=act, lm_act="gelu", first_position=first, **fields)

    def write(config: ModelConfig) -> dict[str, Any]:
        return {"model_type": model_type, **written(config, described, KEYS, "hidden_act")}

    described = Family(
        tasks={
            f"{classes}Model": "base",
            f"{classes}ForMaskedLM": "masked-lm",
            f"{classes}ForSequenceClassification": "sequence-classification",
            f"{classes}ForTokenClassification": "token-classification",
            f"{classes}ForQuestionAnswering": "question-answering",
        },
        encoders=(f"{classes}ForMultipleChoice", f"{classes}ForCausalLM"),
        tokenizer=tokenizer,
        read=read,
        write=write,
        prefix="roberta.",
        encoder=bert.FAMILY.encoder,
        head=HEAD,
        ignored=IGNORED,
    )
    return described


HEAD = {
    "lm_dense": "lm_head.dense",
    "lm_norm": "lm_head.layer_norm",
    "lm_decoder": "lm_head.decoder",
    "lm_bias": "lm_head.bias",
    "classifier_dense": "classifier.dense",
    "classifier": "classifier.out_proj",
    "token_classifier": "classifier",
    "question_answering": "qa_outputs",
}
# Constant buffers; a pooler that no head uses; the decoder stored again although it is tied.
IGNORED = (
    r"embeddings\.(position_ids|token_type_ids)",
    r"pooler\.dense\.(weight|bias)",
    r"lm_head\.(bias|decoder\.weight|decoder\.bias)",
)
FAMILY = family("roberta", "roberta", "Roberta", "RobertaTokenizer")
