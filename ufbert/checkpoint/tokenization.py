"""The tokenizer of a model folder: ``tokenizer.json``, else ``vocab.txt`` with BERT's rules."""

from __future__ import annotations

from typing import Any

from ..errors import CheckpointError
from ..tokenizer import Tokenizer
from .files import ModelFolder

__all__ = ["load_tokenizer"]

BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


def load_tokenizer(folder: ModelFolder, max_positions: int, lowercase: bool = False) -> Tokenizer:
    """Load and configure a tokenizer.

    Parameters
    ----------
    folder : ModelFolder
    max_positions : int
        Tokens that the model can take; ``model_max_length`` of ``tokenizer_config.json`` may lower it.
    lowercase : bool
        Lowercase texts before the tokenizer sees them.

    Raises
    ------
    CheckpointError
        If there is no tokenizer, or a file of it is faulty.
    """
    settings = folder.read_optional_json("tokenizer_config.json")
    special = _special_tokens(folder, settings)
    if folder.has("tokenizer.json"):
        backend = _from_json(folder)
    elif folder.has("vocab.txt"):
        backend = _from_vocabulary(folder, settings, BERT_TOKENS | special)
    else:
        raise CheckpointError(
            f"{folder.path}: expected tokenizer.json or vocab.txt, found neither; copy it from the model's folder"
        )
    backend.no_truncation()
    backend.no_padding()
    for name, text in BERT_TOKENS.items():
        if name not in special:
            # Old folders say nothing; the authors of crammedBERT write "<mask>".
            angled = f"<{text[1:-1].lower()}>"
            known = [token for token in (text, angled) if backend.token_to_id(token) is not None]
            special |= {name: known[0]} if known else {}
    limit = settings.get("model_max_length")
    longest = min(limit, max_positions) if isinstance(limit, (int, float)) and limit >= 1 else max_positions
    clean_up = settings.get("clean_up_tokenization_spaces") is True
    return Tokenizer(backend, int(longest), special, lowercase, clean_up)


def _from_json(folder: ModelFolder) -> Any:
    import tokenizers

    text = folder.read_text("tokenizer.json")
    try:
        return tokenizers.Tokenizer.from_str(text)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic in the library is not an Exception
        raise CheckpointError(
            f"{folder.path / 'tokenizer.json'}: expected a tokenizer of the tokenizers library, found a fault: "
            f"{error}; copy it anew"
        ) from None


def _from_vocabulary(folder: ModelFolder, settings: dict[str, Any], special: dict[str, str]) -> Any:
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
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
        strip_accents=settings.get("strip_accents"),
        lowercase=bool(settings.get("do_lower_case", True)),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls_token"], special["sep_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([token for token in special.values() if token in vocabulary])
    return backend


def _special_tokens(folder: ModelFolder, settings: dict[str, Any]) -> dict[str, str]:
    """Special tokens by name; an entry is the text itself or an object that has it as ``content``."""
    entries = folder.read_optional_json("special_tokens_map.json") | settings
    found = {}
    for name in BERT_TOKENS:
        entry = entries.get(name)
        text = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(text, str):
            found[name] = text
    return found
