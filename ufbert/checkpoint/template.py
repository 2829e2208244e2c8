"""Templates of a post-processor, checked before the tokenizers library meets what makes it panic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, shown

if TYPE_CHECKING:
    from tokenizers.processors import PostProcessor

__all__ = ["check_template"]

MOST = 2**31 - 1  # ids and type ids are int32


def check_template(file: Path, processor: PostProcessor) -> None:
    """Raise CheckpointError if a template names a special token, or a text, that is not there, or half a token.

    The library panics at the first text, and prints the stack of it.
    """
    state = json.loads(processor.__getstate__())
    for part in state["processors"] if state["type"] == "Sequence" else [state]:
        if part["type"] != "TemplateProcessing":
            continue
        for token, entry in part["special_tokens"].items():
            if len(entry["ids"]) != len(entry["tokens"]):  # an encoding would have more ids than tokens
                raise CheckpointError(
                    f"{file}: post_processor: special_tokens: {shown(token)}: expected as many ids as tokens, found "
                    f"{len(entry['ids'])} and {len(entry['tokens'])}; copy the file anew"
                )
            if max(entry["ids"], default=0) > MOST:
                raise CheckpointError(
                    f"{file}: post_processor: special_tokens: {shown(token)}: expected ids of at most {MOST}, found "
                    f"{max(entry['ids'])}; copy the file anew"
                )
        for name, texts in (("single", {"A"}), ("pair", {"A", "B"})):
            pieces = [(kind, piece["id"]) for found in part[name] for kind, piece in found.items()]
            special = {piece for kind, piece in pieces if kind == "SpecialToken"}
            if (
                largest := max((piece["type_id"] for found in part[name] for piece in found.values()), default=0)
            ) > MOST:
                raise CheckpointError(
                    f"{file}: post_processor: {name}: expected a type_id of at most {MOST}, found {largest}; copy the "
                    "file anew"
                )
            sequences = [piece for kind, piece in pieces if kind == "Sequence"]
            if missing := special - set(part["special_tokens"]):
                raise CheckpointError(
                    f"{file}: post_processor: {name}: expected tokens of its special_tokens, found "
                    f"{shown(sorted(missing)[0])}; copy the file anew"
                )
            if set(sequences) != texts:
                raise CheckpointError(
                    f"{file}: post_processor: {name}: expected the texts {' and '.join(sorted(texts))}, found "
                    f"{', '.join(sequences) or 'none'}; copy the file anew"
                )
