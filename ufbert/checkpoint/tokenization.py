"""The tokenizer of a model folder: ``tokenizer.json``, else a vocabulary with BERT's rules or RoBERTa's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CheckpointError, shown
from ..tokenizer import Tokenizer
from .folder import ModelFolder
from .options import Options
from .template import check_template

if TYPE_CHECKING:
    from tokenizers import AddedToken

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
ROBERTA_TOKENS = {
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
SPECIAL_TOKENS = ("bos_token", "eos_token", *BERT_TOKENS)
# Classes of transformers, without "Fast": those that are BERT's, those that have no rules of their own, those that
# split texts by other means than tokenizer.json or vocab.txt, and those that give no token types.
BERT_CLASSES = (
    "BertTokenizer", "ConvBertTokenizer", "DPRContextEncoderTokenizer", "DPRQuestionEncoderTokenizer",
    "DistilBertTokenizer", "ElectraTokenizer", "FunnelTokenizer", "LayoutLMTokenizer", "LxmertTokenizer",
    "MobileBertTokenizer", "RetriBertTokenizer", "SplinterTokenizer", "SqueezeBertTokenizer",
)  # fmt: skip
BYTE_LEVEL_CLASSES = ("LongformerTokenizer", "RobertaTokenizer")
GENERIC_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend")
OTHER_MEANS = ("BertJapaneseTokenizer", "BertweetTokenizer", "CanineTokenizer", "PhobertTokenizer")
WITHOUT_TYPES = (
    "BartTokenizer", "BertGenerationTokenizer", "CamembertTokenizer", "DistilBertTokenizer", "GPT2Tokenizer",
    "LlamaTokenizer", "MPNetTokenizer", "RobertaTokenizer", "T5Tokenizer", "XLMRobertaTokenizer",
)  # fmt: skip


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
    kind = _class(folder, settings)
    entries = _entries(folder, settings)
    special = {key: text for key in BERT_TOKENS if (text := _content(entries.get(key))) is not None}
    if folder.has("tokenizer.json"):
        file = folder.path / "tokenizer.json"
        backend = _from_json(folder, file, settings, kind)
    elif kind in BYTE_LEVEL_CLASSES:
        file, special = folder.path / "vocab.json", ROBERTA_TOKENS | special
        backend = _guarded(file, lambda: _from_merges(folder, settings, special))
    elif folder.has("vocab.txt"):
        file = folder.path / "vocab.txt"
        backend = _from_vocabulary(folder, settings, BERT_TOKENS | special, kind)
    else:
        raise CheckpointError(
            f"{folder.path}: expected tokenizer.json or vocab.txt, found neither; copy it from the model's folder"
        )
    _guarded(file, lambda: _add_tokens(backend, folder, settings, entries, vocab_size))
    side = (backend.truncation or {}).get("direction", "right").lower()
    side = settings.choice("truncation_side", ("right", "left"), side)
    if not _gives_token_types(settings, kind):
        backend.post_processor = _without_types(backend.post_processor)
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
    processor, backend.post_processor = backend.post_processor, _plain_processor()
    words = kind not in BYTE_LEVEL_CLASSES or settings.flag("add_prefix_space", False)
    tokenizer = Tokenizer(
        backend, processor, max_positions, special, lowercase, clean_up, side == "left", takes_words=words
    )
    limit = settings.get("model_max_length", settings.get("max_len", max_positions))  # the latter is of 2019
    minimum = tokenizer.min_length()
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= minimum:
        raise settings.error("model_max_length", f"a number from {minimum}", limit)
    return replace(tokenizer, max_length=int(min(limit, max_positions)))


def _guarded(file: Path, call: Callable[[], Result]) -> Result:
    """Call the library; whatever it raises is the file's fault."""
    try:
        return call()
    except (KeyboardInterrupt, SystemExit, MemoryError, CheckpointError):
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


def _class(folder: ModelFolder, settings: Options) -> str:
    """Name of the tokenizer's class, without "Fast": as the files say, else that of the model's family."""
    config = folder.read_optional_json("config.json")
    name = settings.get("tokenizer_class", None) or config.get("tokenizer_class")
    known: tuple[str, ...] = BERT_CLASSES
    if name is None:
        name = folder.family().tokenizer if config else "BertTokenizer"
        known += GENERIC_CLASSES  # crammedBERT's folders with a vocabulary alone are BERT's
    if not isinstance(name, str):
        raise settings.error("tokenizer_class", "the name of a class", name)
    kind = name.removesuffix("Fast")
    has_merges = folder.has("vocab.json") and folder.has("merges.txt")
    by_rules = folder.has("tokenizer.json") or kind in known or (kind in BYTE_LEVEL_CLASSES and has_merges)
    if kind in OTHER_MEANS or not by_rules:
        found = f"{name}, which splits texts in its own way" if kind in OTHER_MEANS else f"{name} without it"
        raise CheckpointError(
            f"{folder.path}: tokenizer_class: expected BERT's or a tokenizer.json, found {found}; ufbert would give "
            "other ids than the model was trained with: use another model"
        )
    return kind


def _gives_token_types(settings: Options, kind: str) -> bool:
    """Whether the second text of a pair has the type 1."""
    names = settings.get("model_input_names", None)
    if names is None:
        return kind not in WITHOUT_TYPES
    if not isinstance(names, list):
        raise settings.error("model_input_names", "a list of names", names)
    return "token_type_ids" in names


def _without_types(processor: Any) -> Any:
    """Return a post-processor that does the same but gives everything the type 0."""
    from tokenizers import processors

    if isinstance(processor, processors.RobertaProcessing):  # gives no other
        return processor
    state = processor.__getstate__().decode()
    if isinstance(processor, processors.BertProcessing):
        settings = json.loads(state)
        return _bert_processor(settings["cls"], settings["sep"], 0)
    if '"type_id"' in state:  # a template, or a sequence with one
        processor.__setstate__(re.sub(r'"type_id":\s*\d+', '"type_id":0', state).encode())
        return processor
    zeros = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:0", special_tokens=[])
    return processors.Sequence([processor, zeros])


def _from_json(folder: ModelFolder, file: Path, settings: Options, kind: str) -> Any:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    text = folder.read_text("tokenizer.json")
    backend = _guarded(file, lambda: Tokenizer.from_str(text))
    if backend.post_processor is None:
        backend.post_processor = _plain_processor()
    check_template(file, backend.post_processor)
    # Some classes set anew what the settings say, whatever the file has.
    if kind in (*BERT_CLASSES, "MPNetTokenizer") and isinstance(backend.normalizer, normalizers.BertNormalizer):
        backend.normalizer = _normalizer(settings, backend.normalizer.clean_text)
    if kind in BYTE_LEVEL_CLASSES and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        backend.pre_tokenizer.add_prefix_space = settings.flag("add_prefix_space", False)
    return backend


def _plain_processor() -> Any:
    """Return a post-processor that adds nothing, and gives the second text of a pair the type 1."""
    from tokenizers import processors

    return processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])


def _normalizer(settings: Options, clean_text: bool = True) -> Any:
    from tokenizers import normalizers

    return normalizers.BertNormalizer(
        clean_text=clean_text,
        handle_chinese_chars=settings.flag("tokenize_chinese_chars", True),
        strip_accents=settings.choice("strip_accents", (True, False, None), None),
        lowercase=settings.flag("do_lower_case", True),
    )


def _bert_processor(cls: tuple[str, int], sep: tuple[str, int], second: int) -> Any:
    """Return BERT's post-processor, for a classifying and a separating token, and the type of a second text."""
    from tokenizers import processors

    return processors.TemplateProcessing(
        single="cls:0 $A:0 sep:0",
        pair=f"cls:0 $A:0 sep:0 $B:{second} sep:{second}",
        special_tokens=[  # named by us, for the tokens may be spelled like the template's own words
            {"id": name, "ids": [number], "tokens": [token]} for name, (token, number) in (("cls", cls), ("sep", sep))
        ],
    )


def _from_vocabulary(folder: ModelFolder, settings: Options, special: dict[str, str], kind: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

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
    backend.normalizer = _normalizer(settings)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    cls, sep = special["cls_token"], special["sep_token"]
    backend.post_processor = _bert_processor((cls, vocabulary[cls]), (sep, vocabulary[sep]), 1)
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([token for token in special.values() if token in vocabulary])
    return backend


def _from_merges(folder: ModelFolder, settings: Options, special: dict[str, str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary, lines = folder.read_json("vocab.json"), folder.read_text("merges.txt").split("\n")
    merges: Any = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    missing = [token for name, token in special.items() if name != "mask_token" and token not in vocabulary]
    if missing:
        raise CheckpointError(
            f"{folder.path / 'vocab.json'}: expected tokens with ids, {', '.join(special.values())} among them, found "
            f"{len(vocabulary)} without {', '.join(missing)}; copy it anew"
        )
    backend = Tokenizer(models.BPE(vocabulary, merges))
    spaced, trimmed = settings.flag("add_prefix_space", False), settings.flag("trim_offsets", True)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    backend.decoder = decoders.ByteLevel()
    cls, sep = ((special[name], vocabulary[special[name]]) for name in ("cls_token", "sep_token"))
    backend.post_processor = processors.RobertaProcessing(sep, cls, trimmed, spaced)
    tokens = [
        AddedToken(token, lstrip=name == "mask_token", normalized=False, special=True)  # the mask takes a space
        for name, token in special.items()
        if token in vocabulary
    ]
    backend.add_special_tokens(tokens)
    return backend


def _entries(folder: ModelFolder, settings: Options) -> dict[str, Any]:
    """What ``tokenizer_config.json`` says, and in older folders ``special_tokens_map.json`` over it."""
    if settings.values.get("added_tokens_decoder") is not None:
        return dict(settings.values)
    return dict(settings.values) | folder.read_optional_json("special_tokens_map.json")


def _content(entry: object) -> str | None:
    """Text of a token, which is written as itself or as an object; None if it is neither."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else None  # without half characters


def _add_tokens(
    backend: Any, folder: ModelFolder, settings: Options, entries: dict[str, Any], vocab_size: int | None
) -> None:
    """Add the tokens that other files than the vocabulary know, in transformers' order, each with its id.

    Raises
    ------
    CheckpointError
        If a token would get another id than the files say.
    """
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token, expected in sorted(_with_ids(folder, settings, entries), key=lambda pair: pair[1]):
        if token.content not in known:
            _add(backend, token)
        found = backend.token_to_id(token.content)
        if found != expected:
            raise CheckpointError(
                f"{folder.path}: added token {shown(token.content)}: expected the id {expected}, as the files say, "
                f"found {found} in the vocabulary; copy all files of the tokenizer anew"
            )
    known = {token.content for token in backend.get_added_tokens_decoder().values()}  # with spaces that they may take
    for key in SPECIAL_TOKENS:
        named = _token(entries.get(key), special=True)
        room = vocab_size is None or backend.get_vocab_size() < vocab_size
        if named is None or named.content in known:
            continue
        if room or backend.token_to_id(named.content) is not None:
            _add(backend, named)
    for entry in _listed(settings, entries):
        listed = _token(entry, special=True)
        if listed is None:
            raise settings.error("additional_special_tokens", "a list of tokens", entry)
        _add(backend, listed)


def _add(backend: Any, token: AddedToken) -> None:
    """Add a token, if it is not there as an added one."""
    (backend.add_special_tokens if token.special else backend.add_tokens)([token])


def _listed(settings: Options, entries: dict[str, Any]) -> list[Any]:
    """Special tokens without a role; the newer key may also name them."""
    found: list[Any] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = entries.get(key) or []
        if not isinstance(value, (list, dict)):
            raise settings.error(key, "a list of tokens", value)
        found += value.values() if isinstance(value, dict) else value
    return found


def _with_ids(folder: ModelFolder, settings: Options, entries: dict[str, Any]) -> list[tuple[AddedToken, int]]:
    """Tokens whose ids are known: from ``added_tokens_decoder``, in older folders from ``added_tokens.json``."""
    key, name = "added_tokens_decoder", "added_tokens.json"
    found: list[tuple[AddedToken | None, object]]
    if settings.values.get(key) is not None:
        found = [
            (_token(entry), int(number) if number.isdecimal() else None)
            for number, entry in settings.section(key).values.items()
        ]
        where = f"{settings.where}: {key}"
    else:
        texts = {_content(entry) for entry in [*map(entries.get, SPECIAL_TOKENS), *_listed(settings, entries)]}
        tokens = folder.read_optional_json(name)
        found = [(_token(text, special=text in texts), number) for text, number in tokens.items()]
        where = str(folder.path / name)
    checked = []
    for token, number in found:
        if token is None or isinstance(number, bool) or not isinstance(number, int):
            raise CheckpointError(f"{where}: expected tokens with ids, found {shown(token)}: {shown(number)}")
        checked.append((token, number))
    return checked


def _token(entry: object, special: bool = False) -> AddedToken | None:
    """Build a token from its text, or from an object with its text and flags."""
    from tokenizers import AddedToken

    text = _content(entry)
    if not text:
        return None
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    flags = {name: entry[name] for name in names if name in entry} if isinstance(entry, dict) else {}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        return None
    special = flags.setdefault("special", special) or special
    flags.setdefault("normalized", not special)
    return AddedToken(text, **(flags | {"special": special}))
