"""Goldens of texts with byte-level tokenizers (RoBERTa, ModernBERT) and a Unigram one (XLM-RoBERTa): what pipelines answer.

    python make_byte_and_unigram.py GOLDEN [NAME]

GOLDEN is the folder of all goldens. Run it twice, in two environments (Python 3.11, torch 2.13.0 on a CPU):
- transformers 5.24.0, tokenizers 0.23.3, sentence-transformers 6.2.0: everything but question-answering's pipelines
- transformers 4.57.6, tokenizers 0.22.2: those, in folders that the first run has made
"""

import math
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
import transformers
from make_families import PADDED_BY_ONE, in_words_of_4, randomize
from make_pipelines import (
    FILL_MASK,
    QUESTION_ANSWERING,
    SENTENCES,
    TEXT_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    run,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
MASK = AddedToken("<mask>", lstrip=True, special=True)
ENTITIES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
LABELS = ["bad", "fair", "good"]
VERSION = int(transformers.__version__.split(".")[0])


def byte_level(size=330):
    """Vocabulary and merges: bytes, then the most frequent pair again and again; ties go to the lesser pair."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = Counter(tuple(word) for text in SENTENCES for word, _ in split.pre_tokenize_str(text))
    tokens, merges = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet()), []
    while len(tokens) < size - 1:
        pairs = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        words = Counter({merged(word, best): count for word, count in words.items()})
    return {token: index for index, token in enumerate([*tokens, "<mask>"])}, merges


def merged(word, pair):
    """Join a pair wherever it stands in a word."""
    parts = []
    for part in word:
        if parts and (parts[-1], part) == pair:
            parts[-1] += part
        else:
            parts.append(part)
    return tuple(parts)


def unigram(size=260):
    """Pieces with the logarithms of their frequencies, no two alike."""
    words = ["\u2581" + word for text in SENTENCES for word in text.split()]
    counts = Counter()
    for word in words:
        for start in range(len(word)):
            for end in range(start + 1, len(word) + 1):
                if end - start <= 4 or (start, end) == (0, len(word)):
                    counts[word[start:end]] += 1
    characters = sorted({piece for piece in counts if len(piece) == 1} | set('0123456789!?()-"€éüß中文я'))
    longer = sorted((p for p in counts if len(p) > 1), key=lambda piece: (-counts[piece], -len(piece), piece))
    pieces = [*characters, *longer[: size - len(SPECIAL) - 1 - len(characters)]]
    total = sum(counts.values())
    scores = [math.log(max(counts[piece], 0.5) / total) - 1e-4 * index for index, piece in enumerate(pieces)]
    return [(token, 0.0) for token in SPECIAL] + list(zip(pieces, scores, strict=True)) + [("<mask>", 0.0)]


def byte_level_tokenizer(**options):
    """Build RoBERTa's tokenizer."""
    vocabulary, merges = byte_level()
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=merges, mask_token=MASK, **options)


def unigram_tokenizer(**options):
    """Build XLM-RoBERTa's tokenizer."""
    return transformers.XLMRobertaTokenizer(vocab=unigram(), mask_token=MASK, **options)


def modern_tokenizer(**options):
    """Build ModernBERT's tokenizer: byte-level pieces between BERT's special tokens."""
    names = {"<s>": "[CLS]", "<pad>": "[PAD]", "</s>": "[SEP]", "<unk>": "[UNK]", "<mask>": "[MASK]"}
    vocabulary, merges = byte_level()
    backend = Tokenizer(models.BPE({names.get(token, token): index for token, index in vocabulary.items()}, merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = [("[CLS]", 0), ("[SEP]", 2)]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    backend.add_special_tokens([AddedToken("[MASK]", lstrip=True, special=True)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_input_names=["input_ids", "attention_mask"],
        **{f"{name[1:-1].lower()}_token": name for name in names.values()},
        **options,
    )


def model(kind, seed, vocab_size, labels=(), head_bias=None, **options):
    """Build a tiny model of one class."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    cls = getattr(transformers, kind)
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 28}
    config = cls.config_class(
        vocab_size=vocab_size,
        **(sizes | PADDED_BY_ONE | {"max_position_embeddings": 130} | options | (names if labels else {})),
        **(dict.fromkeys(("bos_token_id", "cls_token_id"), 0) if kind.startswith("Modern") else {}),
        **(dict.fromkeys(("eos_token_id", "sep_token_id"), 2) if kind.startswith("Modern") else {}),
    )
    made = randomize(cls(config), seed)
    if head_bias:
        made.classifier.bias.data = torch.tensor(head_bias)
    return made


def masked(calls, mask="<mask>"):
    """Write the calls with the mask token of these tokenizers."""
    return [
        call | {"inputs": [text.replace("[MASK]", mask) for text in call["inputs"]]}
        if isinstance(call["inputs"], list)
        else call | {"inputs": call["inputs"].replace("[MASK]", mask)}
        for call in calls
    ]


KINDS = {
    "roberta": ("Roberta", byte_level_tokenizer),
    "xlm-roberta": ("XLMRoberta", unigram_tokenizer),
    "modernbert": ("ModernBert", modern_tokenizer),
}


def make_pipelines(out, only=None):
    """Write folders with a tokenizer and what the pipelines answer."""
    bias = [2.0, 0.0, 1.0, 0.0, 1.0]
    # What a word is differs on purpose: transformers goes by spaces, or by the length of a piece.
    calls = [
        call
        for call in TOKEN_CLASSIFICATION
        if call.get("aggregation_strategy", "none") in ("none", "simple") and call["inputs"] != " ".join(SENTENCES[:8])
    ]
    for seed, (name, (classes, tokenizer_of)) in enumerate(KINDS.items()):
        if only not in (None, name):
            continue
        tokenizer = tokenizer_of(model_max_length=128)
        size = len(tokenizer)
        folder = out / f"fill-mask-{name}"
        tokenizer.save_pretrained(folder)
        run(
            "fill-mask",
            folder,
            model(f"{classes}ForMaskedLM", seed, size),
            tokenizer,
            masked(FILL_MASK, str(tokenizer.mask_token)),
        )
        folder = out / f"text-classification-{name}"
        tokenizer.save_pretrained(folder)
        made = model(f"{classes}ForSequenceClassification", 10 + seed, size, LABELS)
        run("text-classification", folder, made, tokenizer, TEXT_CLASSIFICATION)
        folder = out / f"token-classification-{name}"
        tokenizer.save_pretrained(folder)
        made = model(f"{classes}ForTokenClassification", 20 + seed, size, ENTITIES, bias)
        run("token-classification", folder, made, tokenizer, calls)
        folder = out / f"question-answering-{name}"
        tokenizer_of(model_max_length=128).save_pretrained(folder)
        model(f"{classes}ForQuestionAnswering", 30 + seed, size).save_pretrained(folder)
        if name == "modernbert":
            in_words_of_4(folder)


def answer(out, only=None):
    """Let version 4 answer questions."""
    for name in KINDS if only is None else [only]:
        folder = out / f"question-answering-{name}"
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        made = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
        calls = [
            call for call in QUESTION_ANSWERING if call.get("align_to_words", True)
        ]  # else a space may be an answer
        run("question-answering", folder, made, tokenizer, calls)


def make_sentence_transformers(out, only=None):
    """Write folders as all-distilroberta-v1 and multilingual-e5 have them."""
    from make_sentence_transformers import Normalize, Pooling, Transformer, make

    for seed, (name, classes, tokenizer) in enumerate(
        (("roberta", "RobertaModel", byte_level_tokenizer), ("xlm-roberta", "XLMRobertaModel", unigram_tokenizer))
    ):
        if only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            made = tokenizer(model_max_length=24)
            made.save_pretrained(folder)
            model(classes, 40 + seed, len(made)).save_pretrained(folder)
            body = Transformer(folder)
        make(out / name, body, Pooling(24), Normalize())


def main(out, only=None):
    """Write what this environment can."""
    torch.set_num_threads(1)
    if VERSION < 5:
        answer(out / "pipelines", only)
    else:
        make_pipelines(out / "pipelines", only)
        make_sentence_transformers(out / "sentence-transformers", only)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
