"""Late chunking: a long text runs through the encoder once, and its parts are pooled after that.

Each part's embedding knows what stands around it ("the city" knows which), unlike that of the part embedded alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..batch import Batch
from ..checkpoint.sentence import SentenceModel
from ..errors import InputError, shown
from ..text_model import TextModel

if TYPE_CHECKING:
    from tokenizers import Encoding

__all__ = ["chunk_embeddings"]

Rows = NDArray[np.float32]


def chunk_embeddings(
    model: SentenceModel, texts: TextModel, text: object, spans: Iterable[Sequence[int]], overlap: int | None
) -> Rows:
    """Embed parts of one text: (len(spans), dim); see `SentenceEncoder.encode_chunks`."""
    if not isinstance(text, str):
        raise InputError(f"text: expected str, got {type(text).__name__}: {shown(text)}")
    if "cls" in model.pooling.modes:
        raise InputError(
            "encode_chunks: expected a model that pools all tokens, got one that takes the first token (cls), of which "
            "a part has none; give pooling='mean' to SentenceEncoder, or use another model"
        )
    places = [_checked(span, number, len(text)) for number, span in enumerate(spans)]
    whole = texts.prompt + text
    if texts.tokenizer.lowercase and len(whole.lower()) != len(whole):
        raise InputError("text: expected one whose length does not change in lower case, got another; lower it first")
    hidden, ids, offsets = _states(texts, whole, overlap)
    skipped = len(texts.prompt)
    chosen = [_tokens(offsets, start + skipped, end + skipped, number) for number, (start, end) in enumerate(places)]
    rows = np.concatenate([np.zeros(0, np.int64), *chosen])
    ends = np.cumsum([0, *map(len, chosen)], dtype=np.int64)
    none = np.zeros(len(rows), np.int32)
    return model.embed(hidden[rows], Batch(ids[rows], none, none, ends))  # (T, H) -> (N, dim)


def _checked(span: Sequence[int], number: int, length: int) -> tuple[int, int]:
    if not isinstance(span, (tuple, list)) or len(span) != 2:
        raise InputError(f"spans: expected pairs of start and end, got {shown(span)} as number {number}")
    start = checks.integer(span[0], f"spans: start of number {number}", 0, length)
    return start, checks.integer(span[1], f"spans: end of number {number}", start, length)


def _states(texts: TextModel, text: str, overlap: int | None) -> tuple[Rows, NDArray[np.int32], NDArray[np.int64]]:
    """Hidden states (T, H), ids and characters (T, 2) of all tokens of a text but the special ones.

    A text that is too long for the model runs in windows that overlap; a token's state is from the window in which it
    stands further from the edge.
    """
    tokenizer = texts.tokenizer
    (pieces,) = tokenizer.pieces([text])
    room = texts.max_length - tokenizer.num_special_tokens()
    shared = room // 4 if overlap is None else checks.integer(overlap, "overlap", 0, room - 1)
    total = len(pieces)
    starts = list(range(0, max(total - shared, 1), room - shared)) if total > room else [0]
    windows: list[Encoding] = [pieces]
    if total > room:
        pieces.truncate(room, stride=shared)
        windows += pieces.overflowing
    if len(windows) != len(starts):
        raise AssertionError(f"expected {len(starts)} windows, got {len(windows)}")
    ids = np.empty(total, np.int32)
    offsets = np.empty((total, 2), np.int64)
    hidden = np.empty((total, texts.model.config.hidden_size), np.float32)
    processed = [tokenizer.processor.process(window) for window in windows]
    for run in texts.run(processed):
        for index, rows in run.split(run.hidden):
            special = np.array(processed[index].special_tokens_mask, bool)
            first = starts[index]
            own = first + (shared + 1) // 2 if index else 0  # the middle of what two windows share
            stop = min(first + int((~special).sum()), total)
            hidden[own:stop] = rows[~special][own - first :]
            ids[own:stop] = np.array(processed[index].ids, np.int32)[~special][own - first :]
            offsets[own:stop] = np.array(processed[index].offsets, np.int64).reshape(-1, 2)[~special][own - first :]
    return hidden, ids, offsets


def _tokens(offsets: NDArray[np.int64], start: int, end: int, number: int) -> NDArray[np.int64]:
    """Tokens that have a character of a span."""
    found = np.flatnonzero((offsets[:, 0] < end) & (offsets[:, 1] > start))
    if not len(found):
        raise InputError(
            f"spans: expected parts with a token each, got number {number} ({start}, {end}) without; leave out "
            "what has only spaces"
        )
    return found
