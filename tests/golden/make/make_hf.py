"""Array-level goldens of BERT checkpoints as transformers stores them.

    python make_hf.py OUT

Made with Python 3.11, torch 2.13.0 on a CPU, transformers 5.23.0, safetensors 0.8.0. Each folder: config.json,
model.safetensors (or shards) and expected.safetensors: input_ids, attention_mask, token_type_ids -> last_hidden_state,
pooler_output, logits. The reference does not zero the hidden states of masked positions.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

ACTIVATIONS = [
    "relu",
    "silu",
    "swish",
    "tanh",
    "sigmoid",
    "mish",
    "gelu_pytorch_tanh",
    "gelu_fast",
    "gelu_python",
    "quick_gelu",
]
MASKS = {
    "right": [[1] * 9, [1] * 6 + [0] * 3, [1] * 2 + [0] * 7],
    "left": [[1] * 9, [0] * 3 + [1] * 6, [0] * 7 + [1] * 2],
    "holes": [[1, 1, 0, 1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0, 1]],
}


def bert_config(**options):
    return BertConfig(
        **{
            **dict(
                vocab_size=40,
                hidden_size=24,
                num_hidden_layers=1,
                num_attention_heads=3,
                intermediate_size=28,
                max_position_embeddings=20,
            ),
            **options,
        }
    )


def randomize(model, seed, std=0.3):
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        p.data = 1 + 0.2 * noise if name.endswith("LayerNorm.weight") else noise * (0.2 if p.ndim == 1 else std)
    return model.eval()


def inputs(config, seed, mask="right"):
    generator = torch.Generator().manual_seed(1000 + seed)
    attention_mask = torch.tensor(MASKS[mask])
    input_ids = torch.randint(1, config.vocab_size, attention_mask.shape, generator=generator)
    token_type_ids = torch.randint(0, config.type_vocab_size, attention_mask.shape, generator=generator)
    return {
        "input_ids": torch.where(attention_mask == 0, 0, input_ids),
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
    }


@torch.no_grad()
def expected(model, batch):
    """What the model computes, as named arrays. BertModel's outputs come along with every head's logits."""
    body = getattr(model, "bert", model)
    out = body(**batch)
    result = {"last_hidden_state": out.last_hidden_state}
    if out.pooler_output is not None:
        result["pooler_output"] = out.pooler_output
    if body is not model:
        out = model(**batch)
        if "start_logits" in out:
            result["logits"] = torch.stack([out.start_logits, out.end_logits], dim=-1)
        elif "prediction_logits" in out:
            result["logits"], result["seq_relationship_logits"] = out.prediction_logits, out.seq_relationship_logits
        else:
            result["logits"] = out.logits
    return {k: v.float().contiguous() for k, v in result.items()}


def write(folder, model, batch, **save_options):
    model.save_pretrained(folder, **save_options)
    save_file({**batch, **expected(model, batch)}, folder / "expected.safetensors")


def make(folder, cls, seed, mask="right", arguments={}, **options):
    config = bert_config(**options)
    write(folder, randomize(cls(config, **arguments), seed), inputs(config, seed, mask))


def old_names(folder, cls, seed, prefix="", extra=()):
    """Rewrite a saved checkpoint with the names of 2018: gamma, beta, a position_ids buffer, heads left over."""
    make(folder, cls, seed)
    state = load_file(folder / "model.safetensors")
    old = {
        prefix + k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in state.items()
    }
    body = next(k for k in old if k.endswith("embeddings.word_embeddings.weight")).removesuffix(
        "word_embeddings.weight"
    )
    old[body + "position_ids"] = torch.arange(20).unsqueeze(0)
    for name, shape in extra:
        old[name] = torch.full(shape, 9.0)
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})


def reduced(folder, dtype, seed):
    """Weights stored in 16 bits; the reference widens them to float32 and computes in float32."""
    config = bert_config()
    model = randomize(BertForSequenceClassification(config), seed).to(dtype)
    model.save_pretrained(folder)
    batch = inputs(config, seed)
    save_file({**batch, **expected(model.float(), batch)}, folder / "expected.safetensors")


def main(out):
    for i, name in enumerate(ACTIVATIONS):
        make(out / f"act-{name}", BertModel, i, hidden_act=name, hidden_size=12, intermediate_size=24)
    make(out / "question-answering", BertForQuestionAnswering, 20, num_hidden_layers=2)
    make(out / "sequence-classification-1-label", BertForSequenceClassification, 21, num_labels=1)
    make(
        out / "token-classification-labels",
        BertForTokenClassification,
        22,
        id2label={0: "O", 1: "X", 2: "Y"},
        label2id={"O": 0, "X": 1, "Y": 2},
    )
    make(out / "mask-left", BertForMaskedLM, 23, mask="left", num_hidden_layers=2)
    make(out / "mask-holes", BertModel, 24, mask="holes", num_hidden_layers=2)
    make(out / "types-1-heads-1", BertModel, 25, type_vocab_size=1, num_attention_heads=1)
    make(out / "types-3-heads-12", BertModel, 26, type_vocab_size=3, num_attention_heads=12)
    make(out / "layer-norm-eps", BertModel, 27, layer_norm_eps=0.1)
    make(out / "no-pooler", BertModel, 28, arguments=dict(add_pooling_layer=False))
    make(out / "pre-training", BertForPreTraining, 29)
    make(out / "next-sentence-prediction", BertForNextSentencePrediction, 30)
    config = bert_config(tie_word_embeddings=False)
    model = randomize(BertForMaskedLM(config), 31)
    head = model.cls.predictions  # 4.57 computes with head.bias, 5.23 with head.decoder.bias
    head.bias.data = head.decoder.bias.data.clone()
    write(out / "mlm-untied", model, inputs(config, 31))
    make(
        out / "odd-shapes",
        BertForMaskedLM,
        32,
        hidden_size=30,
        num_attention_heads=5,
        intermediate_size=17,
        num_hidden_layers=2,
        vocab_size=53,
        max_position_embeddings=9,
    )
    reduced(out / "float16", torch.float16, 33)
    reduced(out / "bfloat16", torch.bfloat16, 34)

    config = bert_config(num_hidden_layers=2)
    write(out / "sharded", randomize(BertForMaskedLM(config), 35), inputs(config, 35), max_shard_size="16KB")
    old_names(
        out / "old-names-prefixed",
        BertModel,
        36,
        "bert.",
        extra=[("cls.predictions.bias", (40,)), ("cls.seq_relationship.weight", (2, 24))],
    )
    old_names(
        out / "old-names-mlm",
        BertForMaskedLM,
        37,
        extra=[
            ("cls.seq_relationship.weight", (2, 24)),
            ("cls.seq_relationship.bias", (2,)),
            ("bert.pooler.dense.weight", (24, 24)),
            ("bert.pooler.dense.bias", (24,)),
        ],
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
