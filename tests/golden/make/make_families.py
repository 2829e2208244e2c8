"""Goldens of RoBERTa and its relatives, of ELECTRA, MPNet, NomicBERT and ModernBERT: tiny random models with every head.

    python make_families.py GOLDEN [FAMILY]
    python make_families.py check GOLDEN [FAMILY]

GOLDEN is the folder of all goldens. Made with Python 3.11, torch 2.13.0 on a CPU, transformers 5.24.0. Each folder:
config.json, model.safetensors, expected.safetensors. `check`, run with another version of transformers, compares what
it computes from the folders.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from make_hf import MASKS
from safetensors.torch import load_file, save_file

SIZES = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 28,
    "max_position_embeddings": 24,
}
LABELS = {"id2label": {0: "no", 1: "yes", 2: "perhaps"}, "label2id": {"no": 0, "yes": 1, "perhaps": 2}}
UNTIED = {"tie_word_embeddings": False}
MODELS = {  # family: {name: class, mask, options}
    "roberta": {
        "base": ("RobertaModel", "right", {"hidden_act": "relu"}),
        "types": ("RobertaModel", "holes", {"type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-3}),
        "masked-lm": ("RobertaForMaskedLM", "left", {"hidden_act": "silu"}),
        "masked-lm-untied": ("RobertaForMaskedLM", "right", UNTIED),
        "sequence-classification": ("RobertaForSequenceClassification", "holes", LABELS),
        "old-pooler": ("RobertaForSequenceClassification", "right", LABELS),
        "token-classification": ("RobertaForTokenClassification", "right", LABELS),
        "question-answering": ("RobertaForQuestionAnswering", "left", {}),
    },
    "xlm-roberta": {
        "base": ("XLMRobertaModel", "left", {}),
        "masked-lm": ("XLMRobertaForMaskedLM", "right", {}),
        "one-label": ("XLMRobertaForSequenceClassification", "right", {"num_labels": 1}),
        "token-classification": ("XLMRobertaForTokenClassification", "right", LABELS),
        "question-answering": ("XLMRobertaForQuestionAnswering", "right", {}),
    },
    "camembert": {
        "base": ("CamembertModel", "right", {}),
        "masked-lm": ("CamembertForMaskedLM", "right", {}),
        "sequence-classification": ("CamembertForSequenceClassification", "right", LABELS),
        "token-classification": ("CamembertForTokenClassification", "right", LABELS),
        "question-answering": ("CamembertForQuestionAnswering", "right", {}),
    },
    "electra": {
        "base": ("ElectraModel", "right", {"hidden_act": "relu"}),
        "equal-widths": ("ElectraModel", "left", {"embedding_size": 24}),
        "discriminator": ("ElectraForPreTraining", "right", {}),
        "masked-lm": ("ElectraForMaskedLM", "right", {"hidden_act": "relu"}),
        "masked-lm-untied": ("ElectraForMaskedLM", "right", UNTIED),
        "sequence-classification": ("ElectraForSequenceClassification", "holes", LABELS),
        "token-classification": ("ElectraForTokenClassification", "right", LABELS),
        "question-answering": ("ElectraForQuestionAnswering", "right", {}),
    },
    "mpnet": {
        "base": ("MPNetModel", "right", {"hidden_act": "relu"}),
        "holes": ("MPNetModel", "holes", {}),
        "masked-lm": ("MPNetForMaskedLM", "left", {"hidden_act": "silu"}),
        "sequence-classification": ("MPNetForSequenceClassification", "left", LABELS),
        "token-classification": ("MPNetForTokenClassification", "holes", LABELS),
        "question-answering": ("MPNetForQuestionAnswering", "right", {}),
        "long": ("MPNetModel", "long", {"max_position_embeddings": 182, "hidden_size": 12, "intermediate_size": 8}),
    },
    "nomic-bert": {
        "base": ("NomicBertModel", "left", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
        "holes": ("NomicBertModel", "holes", {"num_attention_heads": 2, "head_dim": 12, "hidden_act": "gelu"}),
        "masked-lm": ("NomicBertForMaskedLM", "right", {}),
        "sequence-classification": ("NomicBertForSequenceClassification", "right", LABELS),
        "token-classification": ("NomicBertForTokenClassification", "right", LABELS),
    },
    "modernbert": {
        "base": ("ModernBertModel", "right", {}),
        "holes": ("ModernBertModel", "holes", {"local_attention": 5, "global_attn_every_n_layers": 2}),
        "long": ("ModernBertModel", "long", {"max_position_embeddings": 190, "local_attention": 60}),
        "biases": ("ModernBertModel", "left", {"norm_bias": True, "attention_bias": True, "mlp_bias": True}),
        "masked-lm": ("ModernBertForMaskedLM", "right", {"sparse_prediction": True}),
        "masked-lm-untied": (
            "ModernBertForMaskedLM",
            "left",
            UNTIED | {"decoder_bias": False, "classifier_bias": True},
        ),
        "sequence-classification": ("ModernBertForSequenceClassification", "right", LABELS),
        "mean-pooling": ("ModernBertForSequenceClassification", "holes", LABELS | {"classifier_pooling": "mean"}),
        "token-classification": ("ModernBertForTokenClassification", "right", LABELS),
        "question-answering": ("ModernBertForQuestionAnswering", "right", {"classifier_activation": "silu"}),
    },
}
MASKS["long"] = [[1] * 180, [1] * 150 + [0] * 30]
SHORT = {"num_hidden_layers": 1}
PADDED_BY_ONE = {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
USUAL = {
    "roberta": PADDED_BY_ONE,
    "xlm-roberta": PADDED_BY_ONE | SHORT,
    "camembert": PADDED_BY_ONE | SHORT,
    "electra": {"embedding_size": 12},
    "mpnet": {"layer_norm_eps": 1e-5},
    "nomic-bert": {},
    "modernbert": {
        "num_hidden_layers": 3,
        "local_attention": 8,
        "global_rope_theta": 160.0,
        "local_rope_theta": 20.0,
        "pad_token_id": 0,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1),
    },
}


def randomize(model, seed, std=0.3, head_std=1.0):
    """Weights large enough that labels differ clearly; norms and biases are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.lower().endswith(("layernorm.weight", "layer_norm.weight", "norm.weight")):
            p.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            p.data = 0.2 * noise
        else:
            p.data = noise * (head_std if name.startswith(("classifier.out", "qa_outputs", "out_proj")) else std)
    return model.eval()


def inputs(config, seed, mask):
    """Build a padded batch."""
    generator = torch.Generator().manual_seed(1000 + seed)
    attention_mask = torch.tensor(MASKS[mask])
    ids = torch.randint(2, config.vocab_size, attention_mask.shape, generator=generator)
    batch = {
        "input_ids": torch.where(attention_mask == 0, config.pad_token_id, ids),
        "attention_mask": attention_mask,
    }
    if getattr(config, "type_vocab_size", 1) > 1:
        types = torch.randint(0, config.type_vocab_size, attention_mask.shape, generator=generator)
        batch["token_type_ids"] = types
    return batch


@torch.no_grad()
def outputs(model, batch):
    """Compute hidden states, BERT's pooler, and the head's logits."""
    body = getattr(model, model.base_model_prefix, model)
    out = body(**batch)
    result = {"last_hidden_state": out.last_hidden_state}
    if out.get("pooler_output") is not None:
        result["pooler_output"] = out.pooler_output
    if body is not model and "PreTraining" not in type(model).__name__:
        out = model(**batch)
        spans = "start_logits" in out
        result["logits"] = torch.stack([out.start_logits, out.end_logits], dim=-1) if spans else out.logits
    return {name: value.contiguous() for name, value in result.items()}


def add_pooler(folder):
    """Put the pooler and the buffer into a file that versions of 2020 left in a classifier's."""
    state = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    state["roberta.pooler.dense.weight"] = torch.randn(24, 24, generator=generator)
    state["roberta.pooler.dense.bias"] = torch.randn(24, generator=generator)
    state["roberta.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def each(only):
    """Yield family, name, class, mask, options and seed."""
    for family, models in MODELS.items():
        if only in (None, family):
            for seed, (name, (architecture, mask, options)) in enumerate(models.items()):
                yield family, name, getattr(transformers, architecture), mask, options, seed


def in_words_of_4(folder):
    """Say what transformers 4 says of ModernBERT, and of its tokenizer if there is one."""
    tokenizer = folder / "tokenizer_config.json"
    if tokenizer.exists():
        tokenizer.write_text(tokenizer.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))
    file = folder / "config.json"
    config = json.loads(file.read_text())
    kinds, rotations = config.pop("layer_types"), config.pop("rope_parameters")
    config["global_attn_every_n_layers"] = (kinds + ["full_attention"])[1:].index("full_attention") + 1
    config["global_rope_theta"] = rotations["full_attention"]["rope_theta"]
    config["local_rope_theta"] = rotations["sliding_attention"]["rope_theta"]
    file.write_text(json.dumps(config, indent=2) + "\n")


def make_models(out, only=None):
    """Write one folder for each class."""
    for family, name, cls, mask, options, seed in each(only):
        folder = out / family / name
        config = cls.config_class(**(SIZES | USUAL[family] | options))
        model, batch = randomize(cls(config), seed), inputs(config, seed, mask)
        model.save_pretrained(folder)
        save_file({**batch, **outputs(model, batch)}, folder / "expected.safetensors")
        if name == "old-pooler":
            add_pooler(folder)
        if family == "modernbert" and name not in ("base", "token-classification"):
            in_words_of_4(folder)


def in_any_words(folder, family):
    """Give a copy of a folder that transformers 4 understands, too."""
    copy = Path(tempfile.mkdtemp()) / "model"
    shutil.copytree(folder, copy)
    if family == "modernbert" and "rope_parameters" in (copy / "config.json").read_text():
        in_words_of_4(copy)
    return copy


def check_models(golden, only=None):
    """Compare the goldens with what this version computes from them."""
    for family, name, cls, *_ in each(only):
        expected = load_file(golden / family / name / "expected.safetensors")
        batch = {key: expected[key] for key in ("input_ids", "attention_mask", "token_type_ids") if key in expected}
        model = cls.from_pretrained(in_any_words(golden / family / name, family)).eval()
        kept = batch["attention_mask"] == 1
        for key, found in outputs(model, batch).items():
            pairs = [a[kept] if a.ndim == 3 else a for a in (found, expected[key])]
            print(family, name, key, float((pairs[0] - pairs[1]).abs().max()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    checks = sys.argv[1] == "check"
    arguments = sys.argv[2:] if checks else sys.argv[1:]
    (check_models if checks else make_models)(Path(arguments[0]), *arguments[1:])
