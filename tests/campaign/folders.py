"""Model folders of every kind, and their use as their owners would use them."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from conftest import GOLDEN, write_bert, write_crammed_fff, write_fff, write_sentence_model

import ufbert
from ufbert.checkpoint import ModelFolder, load_tokenizer
from ufbert.checkpoint.pack import load_model
from ufbert.convert import convert

TEXTS = ["the cat", "", "\u1112\u1161 a\u0301\x00 \U0001f600", "x" * 300, "[MASK] [SEP] ##a"]
IDS = [[2, 5, 6, 3]]
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def _fill(model):
    return model([text + " [MASK]" for text in TEXTS], top_k=2)


TASKS = {
    "labels": lambda folder, dtype: ufbert.TextClassifier(folder, dtype)(TEXTS),
    "labels-roberta": lambda folder, dtype: ufbert.TextClassifier(folder, dtype)(TEXTS),
    "ner": lambda folder, dtype: ufbert.TokenClassifier(folder, dtype)(TEXTS),
    "ner-modernbert": lambda folder, dtype: ufbert.TokenClassifier(folder, dtype)(TEXTS),
    "ner-xlm": lambda folder, dtype: ufbert.TokenClassifier(folder, dtype)(TEXTS),
    "qa": lambda folder, dtype: ufbert.QuestionAnswerer(folder, dtype)(["who"] * 3, ["the cat", "a", "x" * 300]),
    "fill": lambda folder, dtype: _fill(ufbert.FillMask(folder, dtype)),
    "cross": lambda folder, dtype: ufbert.CrossEncoder(folder, dtype=dtype).predict([("the", text) for text in TEXTS]),
    "cross-old": lambda folder, dtype: ufbert.CrossEncoder(folder, dtype=dtype).rank("the", TEXTS),
    "zero-shot": lambda folder, dtype: ufbert.ZeroShotClassifier(folder, dtype)(TEXTS[0], ["a", "cat"]),
    **dict.fromkeys(
        ["sparse", "sparse-sum", "sparse-plain"],
        lambda folder, dtype: ufbert.SparseEncoder(folder, dtype=dtype).encode(TEXTS),
    ),
    **dict.fromkeys(
        ["late", "late-pylate", "late-colbert"],
        lambda folder, dtype: _late(ufbert.MultiVectorEncoder(folder, dtype=dtype)),
    ),
}  # fmt: skip
"""Kinds of folders that a task of their own loads; others are used as `use` says."""


def _late(model):
    return model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS))


GOLDENS = {
    "labels": "pipelines/text-classification", "labels-roberta": "pipelines/text-classification-roberta",
    "ner": "pipelines/token-classification", "ner-xlm": "pipelines/token-classification-xlm-roberta",
    "ner-modernbert": "pipelines/token-classification-modernbert", "qa": "pipelines/question-answering",
    "fill": "pipelines/fill-mask", "cross": "cross-encoders/one-label", "cross-old": "cross-encoders/nested-key",
    "zero-shot": "zero-shot", "sparse": "sparse-encoders/max-relu", "sparse-sum": "sparse-encoders/sum-log1p",
    "sparse-plain": "sparse-encoders/plain", "late": "multi-vector/without-expansion",
    "late-pylate": "multi-vector/pylate", "late-colbert": "colbert/attend", "sharded": "hf/sharded",
    "distilbert": "distilbert/masked-lm", "nomic": "nomic-bert/base", "mpnet": "mpnet/base",
    "electra": "electra/masked-lm", "camembert": "camembert/base", "modernbert": "modernbert/base",
    "gated": "crammedbert-glu", "dense": "sentence-transformers/dense-normalize",
    "sentence-roberta": "sentence-transformers/roberta", "inside": "sentence-transformers/subfolder-0-transformer",
}  # fmt: skip


def scratch():
    """A new folder; `run.py` says where, and removes it."""
    return Path(tempfile.mkdtemp())


def seeds(root):
    """Model folders of every kind, by name."""
    folders = {
        "bert": write_bert(root / "bert"),
        "sentence": write_sentence_model(root / "sentence"),
        "trees": write_fff(root / "trees"),
        "crammed": write_crammed_fff(root / "crammed"),
        "based": _based(root / "based", "bert"),
        "adapter": write_sentence_model(root / "adapter"),
    }
    (folders["adapter"] / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    for name, golden in GOLDENS.items():
        folders[name] = _copy(GOLDEN / golden, root / name)
    for name, shards in (("pickled", False), ("pickled-shards", True)):
        folders[name] = _pickled(root / name, shards)
    for name in ("sentence", "trees", "sparse", "dense"):
        folders[f"{name}-int8"] = Path(convert(folders[name], root / f"{name}-int8", "int8"))
    tokenizer = load_tokenizer(ModelFolder(folders["sentence"]), 32)
    for name in ("sentence", "labels"):
        if not (folders[name] / "tokenizer.json").exists():
            tokenizer.backend.save(str(folders[name] / "tokenizer.json"))
    return folders


def _based(folder, base):
    """A folder that has its encoder and its tokenizer from another."""
    write_bert(folder, ufbert_base_model=base)
    (folder / "vocab.txt").unlink()
    return folder


def _copy(source, target):
    """A golden folder without what it should give."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("expected*", "*.npz", "texts.txt"))
    return target


def _pickled(folder, shards):
    """A folder with torch's own weights, behind an index or not."""
    _copy(GOLDEN / "hf" / "act-relu", folder)
    (folder / "model.safetensors").unlink()
    name = "pytorch_model-1.bin" if shards else PICKLED[0]
    shutil.copy(GOLDEN / "pickled" / "model.bin", folder / name)
    if shards:
        names = ModelFolder(GOLDEN / "hf" / "act-relu").own_tensors().names()
        (folder / PICKLED[1]).write_text(json.dumps({"weight_map": dict.fromkeys(names, name)}))
    return folder


def use(name, folder, rng):
    """Load a folder by a way that fits, and run it on odd texts."""
    dtype = rng.choice(["float32", "int8", "bfloat16", "auto"])
    kind = name.removesuffix("-int8")
    if kind in TASKS and rng.random() < 0.8:
        TASKS[kind](folder, dtype)
    elif kind.startswith("pickled"):
        load_model(ModelFolder(folder, pickled=True), dtype=dtype)(np.array(IDS))
    elif (folder / "modules.json").exists():
        ufbert.SentenceEncoder(folder, dtype=dtype).encode(TEXTS)
    elif rng.random() < 0.5 and any((folder / each).exists() for each in ("tokenizer.json", "vocab.txt")):
        model = ufbert.load(folder, dtype)
        tokenizer = load_tokenizer(
            ModelFolder(folder).tokenizer_folder(), 32, vocab_size=model.encoder.embeddings.word.shape[0]
        )
        for text in TEXTS:
            tokenizer.backend.encode(text)
        model(np.array(IDS))
    else:
        ufbert.load(folder, dtype)(np.array(IDS))
