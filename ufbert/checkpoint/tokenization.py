"""The tokenizer of a model folder: ``tokenizer.json``, else ``vocab.txt`` with BERT's rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError
from ..tokenizer import Tokenizer
from .folder import ModelFolder
from .options import Options

__all__ = ["load_tokenizer"]

Result = TypeVar("Result")
PROBE = "Hello, \u16a0\u1200 world"  # with a word that few vocabularies have
BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def load_tokenizer(
    folder: ModelFolder, max_positions: int, lowercase: bool = False, vocab_size: int | None = None
) -> Tokenizer:
    """Load and configure a tokenizer.

    Parameters
    ----------
    folder : ModelFolder
    max_positions : int
        Tokens that the model can take; ``model_max_length`` of ``tokenizer_config.json`` may lower it.
    lowercase : bool
        Lowercase texts before the tokenizer sees them.
    vocab_size : int, optional
        Rows of the model's table, which every id must be in; None for no check.

    Raises
    ------
    CheckpointError
        If there is no tokenizer, a file of it is faulty, or it does not fit the model.
    """
    name = "tokenizer_config.json"
    settings = Options(folder.read_optional_json(name), folder.path / name)
    special = _special_tokens(folder, settings)
    if folder.has("tokenizer.json"):
        file = folder.path / "tokenizer.json"
        backend = _from_json(folder, file)
    elif folder.has("vocab.txt"):
        file = folder.path / "vocab.txt"
        backend = _from_vocabulary(folder, settings, BERT_TOKENS | special)
    else:
        raise CheckpointError(
            f"{folder.path}: expected tokenizer.json or vocab.txt, found neither; copy it from the model's folder"
        )
    backend.no_truncation()
    backend.no_padding()
    _check_ids(file, backend, vocab_size)
    for name, text in BERT_TOKENS.items():
        if name not in special:
            # Old folders say nothing; the authors of crammedBERT write "<mask>".
            angled = f"<{text[1:-1].lower()}>"
            known = [token for token in (text, angled) if backend.token_to_id(token) is not None]
            special |= {name: known[0]} if known else {}
    clean_up = settings.flag("clean_up_tokenization_spaces", False)
    tokenizer = Tokenizer(backend, max_positions, special, lowercase, clean_up)
    limit = settings.get("model_max_length", max_positions)
    minimum = tokenizer.min_length()
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= minimum:
        raise settings.error("model_max_length", f"a number from {minimum}", limit)
    return replace(tokenizer, max_length=int(min(limit, max_positions)))


def _guarded(file: Path, call: Callable[[], Result]) -> Result:
    """Call the library; whatever it raises is the file's fault."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic in the library is not an Exception
        raise CheckpointError(
            f"{file}: expected a tokenizer of the tokenizers library, found a fault: {error}; copy it anew"
        ) from None


def _check_ids(file: Path, backend: Any, vocab_size: int | None) -> None:
    """Try the tokenizer on a text and a pair, and compare its ids with the model's vocabulary."""
    encodings = _guarded(file, lambda: [backend.encode(PROBE), backend.encode(PROBE, PROBE)])
    largest = backend.get_vocab_size() - 1
    if largest >= 0 and backend.id_to_token(largest) is None:  # ids with gaps; the whole table takes 15 milliseconds
        largest = max(backend.get_vocab().values())
    largest = max([largest, *(token for encoding in encodings for token in encoding.ids)])
    if vocab_size is not None and largest >= vocab_size:
        raise CheckpointError(
            f"{file}: expected ids from 0 to {vocab_size - 1}, for config.json says vocab_size {vocab_size}, found the "
            f"id {largest}; are tokenizer and weights of the same model?"
        )


def _from_json(folder: ModelFolder, file: Path) -> Any:
    from tokenizers import Tokenizer, processors

    text = folder.read_text("tokenizer.json")
    backend = _guarded(file, lambda: Tokenizer.from_str(text))
    if backend.post_processor is None:  # the types that `encode` gives to a pair, for `post_process` too
        backend.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    return backend


def _from_vocabulary(folder: ModelFolder, settings: Options, special: dict[str, str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = folder.read_text("vocab.txt").split("\n")
    words = [word.removesuffix("\r") for word in (words[:-1] if words[-1] == "" else words)]
    vocabulary = {word: index for index, word in enumerate(words)}
    missing = [token for name, token in special.items() if name != "mask_token" and token not in vocabulary]
    if missing:
        raise CheckpointError(
            f"{folder.path / 'vocab.txt'}: expected one token a line with {', '.join(special.values())}, "
            f"found {len(words)} lines without {', '.join(missing)}; copy it anew"
        )
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk_token"], max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=settings.choice("strip_accents", (True, False, None), None),
        lowercase=settings.flag("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls_token"], special["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single="cls:0 $A:0 sep:0",
        pair="cls:0 $A:0 sep:0 $B:1 sep:1",
        special_tokens=[  # named by us, for the tokens may be spelled like the template's own words
            {"id": "cls", "ids": [vocabulary[cls]], "tokens": [cls]},
            {"id": "sep", "ids": [vocabulary[sep]], "tokens": [sep]},
        ],
    )
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([token for token in special.values() if token in vocabulary])
    return backend


def _special_tokens(folder: ModelFolder, settings: Options) -> dict[str, str]:
    """Special tokens by name; an entry is the text itself or an object that has it as ``content``."""
    entries = folder.read_optional_json("special_tokens_map.json") | dict(settings.values)
    found = {}
    for name in BERT_TOKENS:
        entry = entries.get(name)
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str):
            found[name] = text.encode("utf-8", "replace").decode()  # without half characters
    return found
