"""Goldens of DistilBERT: tiny random models with every head, pipelines, and a sentence-transformers folder.

    python make_distilbert.py GOLDEN

GOLDEN is the folder of all goldens. Run it twice, in two environments (Python 3.11, torch 2.13.0 on a CPU):
- transformers 5.24.0, tokenizers 0.23.3, sentence-transformers 6.2.0: everything but question-answering's pipeline
- transformers 4.57.6, tokenizers 0.22.2: that pipeline, and a comparison of the models' outputs with version 5's
"""

import sys
from pathlib import Path

import torch
import transformers
from make_hf import MASKS
from make_pipelines import (
    FILL_MASK,
    NER_TEXTS,
    QUESTION_ANSWERING,
    TEXT_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    load_tokenizer,
    make_vocab,
    run,
    write_vocab,
)
from safetensors.torch import load_file, save_file
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    DistilBertTokenizerFast,
)

LABELS = {"id2label": {0: "no", 1: "yes", 2: "perhaps"}, "label2id": {"no": 0, "yes": 1, "perhaps": 2}}
ENTITIES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
MODELS = {  # name: class, seed, mask, options
    "base": (DistilBertModel, 0, "right", {}),
    "sinusoidal": (DistilBertModel, 1, "left", {"sinusoidal_pos_embds": True, "activation": "relu"}),
    "masked-lm": (DistilBertForMaskedLM, 2, "right", {}),
    "masked-lm-untied": (DistilBertForMaskedLM, 3, "right", {"tie_word_embeddings": False}),
    "sequence-classification": (DistilBertForSequenceClassification, 4, "holes", LABELS),
    "token-classification": (DistilBertForTokenClassification, 5, "right", LABELS),
    "question-answering": (DistilBertForQuestionAnswering, 6, "right", {}),
}
VERSION = int(transformers.__version__.split(".")[0])


def save_tokenizer(folder, lowercase=True, size=200, **options):
    """Write the files of a tokenizer of DistilBERT's own class."""
    write_vocab(folder, make_vocab(lowercase, size))
    tokenizer = load_tokenizer(DistilBertTokenizerFast, folder, do_lower_case=lowercase, **options)
    tokenizer.save_pretrained(folder)
    return tokenizer


def config(**options):
    """Build the configuration of a tiny model."""
    sizes = {"vocab_size": 40, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 28, "max_position_embeddings": 64}
    return DistilBertConfig(**(sizes | options))


def randomize(model, seed, std=0.3, head_std=1.0, head_bias=None):
    """Weights large enough that labels differ clearly; norms and biases are not trivial; stored tables stay."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.lower().endswith(("layernorm.weight", "layer_norm.weight")):
            p.data = 1 + 0.2 * noise
        elif name.endswith("bias"):
            p.data = 0.2 * noise
        elif p.requires_grad:
            p.data = noise * (head_std if name.startswith(("classifier", "qa_outputs")) else std)
    if head_bias:
        model.classifier.bias.data = torch.tensor(head_bias)
    return model.eval()


@torch.no_grad()
def outputs(model, batch):
    """Compute hidden states and the head's logits."""
    body = getattr(model, "distilbert", model)
    result = {"last_hidden_state": body(**batch).last_hidden_state}
    if body is not model:
        out = model(**batch)
        spans = "start_logits" in out
        result["logits"] = torch.stack([out.start_logits, out.end_logits], dim=-1) if spans else out.logits
    return {name: value.contiguous() for name, value in result.items()}


def make_models(out):
    """Write one folder for each class."""
    for name, (cls, seed, mask, options) in MODELS.items():
        folder, attention_mask = out / name, torch.tensor(MASKS[mask])
        generator = torch.Generator().manual_seed(1000 + seed)
        ids = torch.randint(1, 40, attention_mask.shape, generator=generator)
        batch = {"input_ids": torch.where(attention_mask == 0, 0, ids), "attention_mask": attention_mask}
        model = randomize(cls(config(**options)), seed)
        model.save_pretrained(folder)
        save_file({**batch, **outputs(model, batch)}, folder / "expected.safetensors")


def compare_models(out):
    """Compare with what another version of transformers wrote."""
    for name, (cls, _, _, _) in MODELS.items():
        expected = load_file(out / name / "expected.safetensors")
        batch = {key: expected.pop(key) for key in ("input_ids", "attention_mask")}
        found = outputs(cls.from_pretrained(out / name).eval(), batch)
        kept = batch["attention_mask"] == 1
        for key, value in found.items():
            rows = kept if value.ndim == 3 else slice(None)
            print(name, key, float((value[rows] - expected[key][rows]).abs().max()))


def make_pipelines(out):
    """Write folders with a tokenizer and what the pipelines answer."""
    short = {"n_layers": 1}
    if VERSION < 5:
        folder = out / "question-answering-distilbert"
        tokenizer = save_tokenizer(folder, model_max_length=128)
        options = short | {"vocab_size": len(tokenizer), "max_position_embeddings": 128}
        model = randomize(DistilBertForQuestionAnswering(config(**options)), 10)
        run("question-answering", folder, model, tokenizer, QUESTION_ANSWERING)
        return
    folder = out / "fill-mask-distilbert"
    tokenizer = save_tokenizer(folder, model_max_length=64)
    options = short | {"vocab_size": len(tokenizer)}
    run("fill-mask", folder, randomize(DistilBertForMaskedLM(config(**options)), 11), tokenizer, FILL_MASK)
    folder = out / "text-classification-distilbert"
    tokenizer = save_tokenizer(folder, model_max_length=64)
    model = randomize(DistilBertForSequenceClassification(config(**options, **LABELS)), 12)
    run("text-classification", folder, model, tokenizer, TEXT_CLASSIFICATION)
    folder = out / "token-classification-distilbert"
    tokenizer = save_tokenizer(folder, False, model_max_length=64)
    names = {"id2label": dict(enumerate(ENTITIES)), "label2id": {label: i for i, label in enumerate(ENTITIES)}}
    options = short | {"vocab_size": len(tokenizer)} | names
    model = randomize(DistilBertForTokenClassification(config(**options)), 13, 0.15, 1.0, [2.0, 0.0, 1.0, 0.0, 1.0])
    calls = [call for call in TOKEN_CLASSIFICATION[::3] if "stride" not in call and call["inputs"] != NER_TEXTS[4]]
    run("token-classification", folder, model, tokenizer, calls)


def make_sentence_transformers(out):
    """Write a folder as distiluse-base-multilingual-cased has it: mean pooling, dense with tanh."""
    import tempfile

    from make_sentence_transformers import Dense, Pooling, Transformer, dense, make

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = save_tokenizer(Path(folder), False, size=130, model_max_length=24)
        model = DistilBertModel(config(vocab_size=len(tokenizer), n_layers=1, hidden_dim=20))
        randomize(model, 14).save_pretrained(folder)
        body = Transformer(folder)
    make(out / "distilbert", body, Pooling(24), dense(15, 24, 10, activation_function=torch.nn.Tanh()))
    assert Dense


def main(out):
    """Write what this environment can."""
    torch.set_num_threads(1)
    make_pipelines(out / "pipelines")
    if VERSION < 5:
        compare_models(out / "distilbert")
    else:
        make_models(out / "distilbert")
        make_sentence_transformers(out / "sentence-transformers")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
