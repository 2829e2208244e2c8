"""Goldens of sentence-transformers' CrossEncoder: tiny random BERTs with classifiers, saved by it.

    python make_cross_encoders.py OUT

Made with sentence-transformers 6.2.0, transformers 5.24.0, tokenizers 0.23.3 (Python 3.11, torch 2.13.0 on a CPU).
Each folder is what save_pretrained() writes, edited where that is said, plus expected.json: pairs and the scores of
predict(), or of predict() with other arguments, max_length, and of models with one label rank().
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from make_pipelines import bert_config, randomize, save_tokenizer
from sentence_transformers import CrossEncoder
from transformers import BertForSequenceClassification

QUERY = "How do plants make food?"
DOCUMENTS = [
    "Leaves turn sunlight into sugar.",
    "",
    "The stock market fell on Monday, and again on Tuesday.",
    "The farmer's daughter studied medicine in Edinburgh and became a well-known surgeon. " * 2,
    "Émile's café in Zürich — 東京 🙂",
]
LONG_QUERY = "Which of the farmer's daughters studied medicine in Edinburgh, and what did she become? " * 2
PAIRS = [(QUERY, text) for text in DOCUMENTS] + [(LONG_QUERY, text) for text in DOCUMENTS] + [("", "")]


def base(folder, seed, num_labels, model_max_length):
    """A random classifier with its tokenizer, as transformers saves it."""
    tokenizer = save_tokenizer(Path(folder), True, size=130, model_max_length=model_max_length)
    config = bert_config(
        len(tokenizer), num_hidden_layers=1, intermediate_size=20, max_position_embeddings=48, num_labels=num_labels
    )
    randomize(BertForSequenceClassification(config), seed).save_pretrained(folder)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2) + "\n", encoding="utf-8")


def scores(model, **arguments):
    return model.predict([list(pair) for pair in PAIRS], show_progress_bar=False, **arguments).tolist()


def expect(folder):
    model = CrossEncoder(str(folder), device="cpu")
    found = {"pairs": PAIRS, "max_length": model.max_seq_length, "predict": scores(model)}
    found["tanh"] = scores(model, activation_fn=torch.nn.Tanh())
    if model.num_labels == 1:
        found["rank"] = model.rank(QUERY, DOCUMENTS, top_k=3, return_documents=True)
    else:
        found["softmax"] = scores(model, apply_softmax=True)
    (folder / "expected.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(out):
    cases = {
        "one-label": (0, 1, 32, {}),
        "one-label-identity": (1, 1, 512, {"activation_fn": torch.nn.Identity()}),
        "three-labels": (2, 3, 40, {}),
        "three-labels-sigmoid": (3, 3, 40, {"activation_fn": torch.nn.Sigmoid(), "max_length": 20}),
    }
    for name, (seed, labels, length, options) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            base(folder, seed, labels, length)
            model = CrossEncoder(folder, device="cpu", **options)
            model.save_pretrained(str(out / name), create_model_card=False)
        expect(out / name)
    # As versions 4 and 5, and versions before them, left them: the activation in config.json, no other files.
    keys = {
        "nested-key": {
            "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}
        },
        "old-key": {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    }
    for seed, (name, change) in enumerate(keys.items(), 4):
        folder = out / name
        folder.mkdir(parents=True)
        base(folder, seed, 1, 512)
        edit_json(folder / "config.json", **change)
        expect(folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
