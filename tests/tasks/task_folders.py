"""Tiny models of the tasks, with tokenizers of several kinds."""

import json

import numpy as np
from conftest import BERT_CONFIG, bert_tensors, write_bert
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SPECIAL = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
TEXT = "Maria moved to Berlin. The cat sat on the mat."
POSITIONS = 64


def write_task(folder, architecture, tokenizer=None, labels=("O", "B-X", "I-X"), change=None):
    """A BERT with a random head; `tokenizer` instead of the vocabulary of `write_bert`, `change` edits its tensors."""
    config = BERT_CONFIG | {"architectures": [architecture], "max_position_embeddings": POSITIONS}
    config["id2label"] = {str(index): label for index, label in enumerate(labels)}
    if tokenizer is not None:
        config["vocab_size"] = tokenizer.get_vocab_size()
    tensors = {f"bert.{name}": array for name, array in bert_tensors(config).items()}
    if "Sequence" not in architecture:
        tensors = {name: array for name, array in tensors.items() if "pooler" not in name}
    rng, hidden = np.random.default_rng(1), config["hidden_size"]
    if "MaskedLM" in architecture:
        heads = {"transform.dense.weight": (hidden, hidden), "bias": (config["vocab_size"],)}
        heads |= {f"transform.{name}": (hidden,) for name in ("dense.bias", "LayerNorm.weight", "LayerNorm.bias")}
        shapes = {f"cls.predictions.{name}": shape for name, shape in heads.items()}
    else:
        name, rows = ("qa_outputs", 2) if "Question" in architecture else ("classifier", len(labels))
        shapes = {f"{name}.weight": (rows, hidden), f"{name}.bias": (rows,)}
    tensors |= {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    write_bert(folder, tensors if change is None else change(tensors), config)
    if tokenizer is not None:
        (folder / "vocab.txt").unlink()
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS} | SPECIAL
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def word_ends_marked():
    """BPE as HerBERT's: the last piece of a word ends in </w>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.BPEDecoder("</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=60, end_of_word_suffix="</w>", special_tokens=list(SPECIAL.values()), show_progress=False
    )
    return _trained(tokenizer, trainer, processors.BertProcessing)


def byte_level():
    """BPE as RoBERTa's: of bytes, a space belongs to the word behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=alphabet, special_tokens=list(SPECIAL.values()), show_progress=False
    )
    return _trained(tokenizer, trainer, lambda sep, cls: processors.RobertaProcessing(sep, cls, add_prefix_space=False))


def unigram(split=True):
    """Unigram as XLM-R's; without `split` no pre-tokenizer cuts at spaces, so everything is one word to it."""
    tokenizer = Tokenizer(models.Unigram())
    if split:
        cut = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
    else:
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=45, unk_token="<unk>", special_tokens=list(SPECIAL.values()), show_progress=False
    )
    return _trained(tokenizer, trainer, processors.BertProcessing)


def wordpiece(words, **normalizer):
    """WordPiece with the vocabulary `words`."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL.values(), *words])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(**normalizer)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    return tokenizer


def _trained(tokenizer, trainer, processing):
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    sep, cls = (("</s>", tokenizer.token_to_id("</s>")), ("<s>", tokenizer.token_to_id("<s>")))
    tokenizer.post_processor = processing(sep, cls)
    return tokenizer
