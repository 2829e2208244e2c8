"""The files of a model folder: their names, and the text and JSON in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..errors import CheckpointError, shown
from .writing import check_regular, unreadable

__all__ = [
    "ARTIFACT", "BASE", "COPIED", "FETCHED", "INDEX", "OLD_BASE", "PICKLED", "SENTENCE_SETTINGS",
    "SENTENCE_TRANSFORMERS", "TOKENIZER", "TRANSFORMER_SETTINGS", "WEIGHTS", "inside", "parse_json", "read_text",
]  # fmt: skip

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
MAX_TEXT_FILE = 256 * 2**20  # bytes; the largest tokenizer.json in use has some 35 MB
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
BASE = "ufbert_base_model"
OLD_BASE = "base_model"  # as 0.1.0 wrote it; other programs use the key for other things
SENTENCE_TRANSFORMERS = "sentence_transformers."  # where the module classes of that library are
# What a model folder and its module folders are made of; pickles, code and other formats are not copied.
TOKENIZER = (
    "added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    "vocab.json", "vocab.txt",
)  # fmt: skip
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where sentence-transformers keeps the settings of its Transformer module, in the order in which it looks."""
ARTIFACT = "artifact.metadata"
"""Settings of Stanford's ColBERT, in JSON."""
SENTENCE_SETTINGS = "config_sentence_transformers.json"
"""What sentence-transformers keeps of calls: prompts, similarity."""
SETTINGS = (ARTIFACT, "config.json", SENTENCE_SETTINGS, "modules.json", *TRANSFORMER_SETTINGS)
COPIED = (*TOKENIZER, *SETTINGS, "README.md", "LICENSE")
FETCHED = (*COPIED, INDEX, PICKLED[1], "adapter_config.json", "[0-9]*_[A-Z]*/*.json", "[0-9]*_[A-Z]*/*.txt")
"""What is fetched of a model of the hub before its weights: all settings, those of module folders too."""


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises
    ------
    CheckpointError
        If there is no such text of at most `MAX_TEXT_FILE` bytes.
    """
    size = check_regular(file)
    try:
        with open(file, encoding="utf-8") as stream:
            text = stream.read(min(size, MAX_TEXT_FILE) + 1)  # it allocates what is asked for
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file}: expected UTF-8 text, found other bytes ({error}); copy it anew") from None
    except OSError as error:
        raise unreadable(file, error) from None
    if max(size, len(text)) > MAX_TEXT_FILE:
        raise CheckpointError(f"{file}: expected at most {MAX_TEXT_FILE} bytes of text, found more; copy it anew")
    return text


def parse_json(file: Path) -> object:
    """Return the value of a JSON file.

    Raises
    ------
    CheckpointError
        If it is none.
    """
    text = read_text(file)
    try:
        value: object = json.loads(text)
        if _ESCAPED_SURROGATE.search(text):  # half a pair is no text, and no library takes it
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: expected JSON, found a fault: {error}; copy it anew") from None
    return value


def inside(folder: Path, name: object, where: str) -> Path:
    """Return a path inside a model folder, as its file `where` names it.

    Raises
    ------
    CheckpointError
        If it is none, or leads out of the folder.
    """
    if isinstance(name, str) and "\0" not in name:
        path = Path(name)
        if ".." not in path.parts and not path.is_absolute():
            return folder / path
    raise CheckpointError(f"{folder / where}: expected names inside the model folder, found {shown(name)}")
