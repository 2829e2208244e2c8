"""Which of the encoders that people download most run: a tiny twin of each, beside its own library.

    python bench/coverage.py                 build every twin, compare, print the table
    python bench/coverage.py --write         and put it into docs/supported.md
    python bench/coverage.py NAME...         only models whose names contain one of these

``coverage.tsv`` has the models: task, downloads a month, how the weights are stored, and what the twin is made of. A
twin is a random model of the same classes, with the same kind of vocabulary, pooling, modules and labels, stored by
its own library; where only a ``pytorch_model.bin`` is published, it is stored so and goes through ``ufbert convert``.
An entry counts where the results of texts agree within 1e-4 of the largest value (embeddings: 1 - cosine within 1e-6
too). Needs PyTorch, transformers and sentence-transformers. Downloads are of 2026, partly estimates: they move by a
factor of two within a year.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

import ufbert

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "pipelines"
TOKENIZERS = {
    "wordpiece": "fill-mask", "cased": "token-classification-cased", "bytes": "fill-mask-roberta",
    "unigram": "fill-mask-xlm-roberta",
}  # fmt: skip
TASKS = {
    "emb": "sentence embeddings", "rerank": "rerankers", "mlm": "base models, fill-mask", "cls": "classification",
    "ner": "entities", "qa": "question answering", "sparse": "SPLADE", "colbert": "ColBERT",
}  # fmt: skip
HEADS = {
    "mlm": "ForMaskedLM", "cls": "ForSequenceClassification", "rerank": "ForSequenceClassification",
    "ner": "ForTokenClassification", "qa": "ForQuestionAnswering", "sparse": "ForMaskedLM", "emb": "Model",
    "colbert": "Model",
}  # fmt: skip
TEXTS = ["the quick brown fox", "a", "the then there, they 123 went the way", "he is in the heer", "z"]
PAIRS = [("the fox", text) for text in TEXTS]
CLOSE = 1e-4


class Different(Exception):
    """The results of the two libraries differ."""


def rows():
    """Entries of ``coverage.tsv``: model, task, millions, weights, twin."""
    lines = (ROOT / "bench" / "coverage.tsv").read_text("utf-8").splitlines()[1:]
    parts = [line.split("\t") for line in lines]
    return [(model, task, float(count), weights, twin) for model, task, count, weights, twin in parts]


def write_tokenizer(folder, kind, family):
    """Put a small tokenizer of a kind into a folder, of the class that the family has; return its number of tokens."""
    source = GOLDEN / TOKENIZERS.get(kind, "fill-mask")
    if kind == "mpnet":  # BERT's words between RoBERTa's special tokens
        words = (source / "vocab.txt").read_text("utf-8").splitlines()
        names = {"[CLS]", "[PAD]", "[SEP]", "[MASK]"}
        others = [word for word in words if word not in names]
        kept = ["<s>", "<pad>", "</s>", "<unk>", *others, "<mask>"]
        vocabulary = {word: index for index, word in enumerate(dict.fromkeys(kept))}
        transformers.MPNetTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
        return len(vocabulary)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_max_length"] = 64
    if family == "ModernBert":
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    elif kind in ("wordpiece", "cased") and family in ("DistilBert", "Electra"):
        settings["tokenizer_class"] = f"{family}Tokenizer"
    elif kind == "unigram" and family == "Bert":  # as multilingual MiniLM and e5-small
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(transformers.AutoTokenizer.from_pretrained(folder))


def make(folder, task, weights, twin):
    """Build a random twin in a folder, and return the words of its description that are left."""
    family, kind, *words = twin.split()
    size = write_tokenizer(folder, kind, family)
    options = {word.split("=")[0]: word.split("=")[-1] for word in words}
    head = "ForMaskedLM" if "masked-lm" in options else "ForPreTraining" if "discriminator" in options else HEADS[task]
    cls = getattr(transformers, family + head)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    config = cls.config_class(
        vocab_size=size, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=80, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    if family == "DistilBert":
        config.update({"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48})
    if family in ("Roberta", "XLMRoberta"):
        config.type_vocab_size = 1
    if family == "ModernBert":
        config.update({"local_attention": 8})
        config.update({"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id})
    if family == "Electra":
        config.embedding_size = 32
    labels = 1 if task == "rerank" else int(options.get("labels", 2))
    if task in ("cls", "rerank", "ner"):
        names = [f"label {i}" for i in range(labels)]
        if task == "ner":
            names = ["O", *(f"{'BI'[i % 2]}-X{i // 2}" for i in range(labels - 1))]
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    if "multi" in options:
        config.problem_type = "multi_label_classification"
    torch.manual_seed(len(twin))
    model = cls(config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            values.copy_(torch.randn_like(values) * 0.25 + ("orm" in name and name.endswith("weight")))
    model.save_pretrained(folder)
    if weights == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(dict(model.state_dict()), folder / "pytorch_model.bin")
    return options


def write_modules(folder, options):
    """Make a sentence-transformers folder."""
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "1_Pooling").mkdir()
    mode = "cls_token" if "cls" in options else "mean_tokens"
    settings = {"word_embedding_dimension": 32, f"pooling_mode_{mode}": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": False} | settings))
    if "dense" in options:
        kinds.append(("2_Dense", "Dense"))
        (folder / "2_Dense").mkdir()
        settings = {"in_features": 32, "out_features": 16, "bias": True}
        settings["activation_function"] = "torch.nn.modules.activation.Tanh"
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
        tensors = {"linear.weight": torch.randn(16, 32) * 0.2, "linear.bias": torch.randn(16) * 0.2}
        save_file(tensors, folder / "2_Dense" / "model.safetensors")
    if "normalize" in options:
        kinds.append((f"{len(kinds)}_Normalize", "Normalize"))
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))


def readable(folder, weights):
    """The folder that ufbert loads: a pickle is converted first."""
    if weights != "bin":
        return folder
    converted = folder.with_name(folder.name + "-converted")
    return converted if converted.exists() else ufbert.convert(folder, converted, "float32")


def agree(own, other):
    """Largest difference, as a share of the largest value where that is above 1; it has to be small."""
    own, other = np.asarray(own, np.float64), np.asarray(other, np.float64)
    if own.shape != other.shape:
        raise Different(f"shapes {own.shape} and {other.shape}")
    difference = float(np.abs(own - other).max()) / max(1.0, float(np.abs(other).max()))
    if not difference <= CLOSE:
        raise Different(f"differs by {difference:.1e}")
    return difference


def embeddings(folder, weights):
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    found = ufbert.SentenceEncoder(readable(folder, weights)).encode(TEXTS)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    if not 1 - cosine.min() < 1e-6:
        raise Different(f"1 - cosine is {1 - cosine.min():.1e}")
    return agree(found, expected)


def reranker(folder, weights):
    from sentence_transformers import CrossEncoder

    expected = CrossEncoder(str(folder), device="cpu").predict(PAIRS)
    return agree(ufbert.CrossEncoder(readable(folder, weights)).predict(PAIRS), expected)


def sparse(folder, weights):
    from sentence_transformers import SparseEncoder

    if not hasattr(ufbert, "SparseEncoder"):
        raise ufbert.UfbertError("no SparseEncoder")
    expected = SparseEncoder(str(folder), device="cpu").encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    return agree(ufbert.SparseEncoder(readable(folder, weights)).encode(TEXTS).toarray(), expected)


def late_interaction(folder, weights):
    """Stanford's form of a folder, which is the published one."""
    from sentence_transformers import MultiVectorEncoder

    file = folder / "model.safetensors"
    tensors = {f"bert.{name}": values for name, values in load_file(file).items()}
    save_file(tensors | {"linear.weight": torch.randn(16, 32) * 0.2}, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    settings = {"query_token_id": "[UNK]", "doc_token_id": "[MASK]", "dim": 16, "query_maxlen": 32, "doc_maxlen": 60}
    (folder / "artifact.metadata").write_text(json.dumps(settings | {"mask_punctuation": False}))
    theirs, own = MultiVectorEncoder(str(folder), device="cpu"), ufbert.MultiVectorEncoder(folder)
    worst = 0.0
    for name in ("encode_query", "encode_document"):
        pairs = zip(getattr(own, name)(TEXTS), getattr(theirs, name)(TEXTS), strict=True)
        worst = max(worst, *(agree(found, expected) for found, expected in pairs))
    return worst


def logits(folder, weights, auto, inputs):
    """Of a model of transformers, for padded texts that its own tokenizer makes."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = auto.from_pretrained(folder).eval()
    features = tokenizer(inputs, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        output = model(**features)
    own = ufbert.load(readable(folder, weights))
    found = own(**{name: values.numpy() for name, values in features.items()})
    return features["attention_mask"].bool().numpy(), output, found


def masked_lm(folder, weights):
    kept, output, found = logits(folder, weights, transformers.AutoModelForMaskedLM, TEXTS)
    difference = agree(found.logits[kept], output.logits.numpy()[kept])
    task = ufbert.FillMask(readable(folder, weights))
    theirs = transformers.pipeline("fill-mask", str(folder), device="cpu")
    text = f"the {task.mask_token} fox"
    agree([fill["score"] for fill in task(text)], [fill["score"] for fill in theirs(text)])
    return difference


def discriminator(folder, weights):
    """ELECTRA's discriminator has no words to give: its encoder counts."""
    kept, output, found = logits(folder, weights, transformers.AutoModel, TEXTS)
    return agree(found.last_hidden_state[kept], output.last_hidden_state.numpy()[kept])


def classifier(folder, weights):
    _, output, _ = logits(folder, weights, transformers.AutoModelForSequenceClassification, TEXTS)
    task = ufbert.TextClassifier(readable(folder, weights))
    theirs = transformers.pipeline("text-classification", str(folder), device="cpu")
    for text in TEXTS:
        own, other = ({label["label"]: label["score"] for label in run(text, top_k=None)} for run in (task, theirs))
        agree([own[name] for name in sorted(own)], [other[name] for name in sorted(other)])
    return agree(task.logits(TEXTS), output.logits.numpy())


def entities(folder, weights):
    kept, output, found = logits(folder, weights, transformers.AutoModelForTokenClassification, TEXTS)
    task = ufbert.TokenClassifier(readable(folder, weights))
    theirs = transformers.pipeline("token-classification", str(folder), device="cpu")
    for text in TEXTS:
        own, other = task(text, "none", None), theirs(text, ignore_labels=[])
        agree([entity["score"] for entity in own], [entity["score"] for entity in other])
    return agree(found.logits[kept], output.logits.numpy()[kept])


def answers(folder, weights):
    task = ufbert.QuestionAnswerer(readable(folder, weights))
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    features = tokenizer("the fox?", TEXTS[2], return_tensors="pt")
    with torch.no_grad():
        output = theirs(**features)
    own = ufbert.load(readable(folder, weights))
    found = own(**{name: values.numpy() for name, values in features.items()}).logits
    assert task(question="the fox?", context=TEXTS[2])["answer"] in TEXTS[2]
    return agree(found, np.stack([output.start_logits.numpy(), output.end_logits.numpy()], -1))


CHECKS = {
    "emb": embeddings, "rerank": reranker, "mlm": masked_lm, "cls": classifier, "ner": entities, "qa": answers,
    "sparse": sparse, "colbert": late_interaction,
}  # fmt: skip


def check(task, weights, twin):
    """Verify a twin: (True, largest difference) or (False, the reason)."""
    if twin.startswith("no: "):
        return False, twin.removeprefix("no: ")
    if task not in CHECKS:
        return False, "no check"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "twin")
        folder.mkdir()
        options = make(folder, task, weights, twin)
        if task == "emb":
            write_modules(folder, options)
        run = discriminator if "discriminator" in options else CHECKS[task]
        try:
            return True, f"{run(folder, weights):.0e}"
        except (Different, ufbert.UfbertError) as error:
            return False, str(error).replace(str(folder), "FOLDER").split("; ")[0]


def table(results):
    """The two tables of the page."""
    lines = ["| | entries that run | of downloads |", "|---|---|---|"]
    for task, name in [*TASKS.items(), (None, "**all**")]:
        found = [(model, count, verdict) for model, kind, count, _, verdict in results if task in (kind, None)]
        run, downloads = [count for _, count, verdict in found if verdict[0]], sum(count for _, count, _ in found)
        share = f"{sum(run):.1f} of {downloads:.1f} M ({sum(run) / downloads:.0%})"
        lines.append(f"| {name} | {len(run)} of {len(found)} ({len(run) / len(found):.0%}) | {share} |")
    lines += ["", "| model | task | M a month | runs | difference, or why not |", "|---|---|---|---|---|"]
    for model, task, count, weights, (runs, why) in results:
        how = "after `ufbert convert`" if runs and weights == "bin" else "yes" if runs else "**no**"
        lines.append(f"| {model} | {task} | {count:g} | {how} | {why} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only models whose names contain one of these")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/supported.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    known, results = {}, []
    for model, task, count, weights, twin in rows():
        if arguments.names and not any(name in model for name in arguments.names):
            continue
        key = task, weights, twin
        if key not in known:
            known[key] = check(*key)
            print(f"{model}: {known[key]}", file=sys.stderr, flush=True)
        results.append((model, task, count, weights, known[key]))
    text = table(results) if not arguments.names else "\n".join(map(str, results))
    print(text)
    if arguments.write:
        page = ROOT / "docs" / "supported.md"
        marked = re.compile(r"(<!-- coverage:[^\n]*-->\n).*?(\n<!-- end of coverage -->)", re.S)
        page.write_text(marked.sub(lambda found: found[1] + text + found[2], page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
