"""Token classification: named entities, parts of speech."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from .. import checks, heads
from ..activations import softmax
from ..checkpoint.folder import ModelFolder
from ..errors import InputError, shown
from ..text_model import ON_OVERFLOW, WINDOW, check_batch_size, check_texts, each_text
from .load import load_texts
from .token_windows import Reading, Sentence, Span, read_sentences

__all__ = ["STRATEGIES", "Entity", "TokenClassifier", "TokenLabel"]

STRATEGIES = ("none", "simple", "first", "average", "max")


class Entity(TypedDict):
    """Neighbouring tokens of one label; `start` and `end` count characters of the text."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class TokenLabel(TypedDict):
    """One token and its label; `index` counts tokens, special ones too."""

    entity: str
    score: float
    index: int
    word: str
    start: int
    end: int


@dataclass(frozen=True)
class _Token:
    """A token that is not special."""

    word: str
    scores: NDArray[np.float32]  # (C,)
    index: int
    start: int
    end: int
    begins_word: bool


@dataclass(frozen=True)
class _Labelled:
    """A token, or the tokens of a word, with the best label."""

    label: str
    score: float
    tokens: list[_Token]


class TokenClassifier:
    """Labels the tokens of texts, with the results of transformers' token-classification pipeline.

    Words are those of the tokenizer, also where pieces inside a word are not marked by a prefix such as "##".

    Parameters
    ----------
    folder : str or path
        A folder with a token classifier and its tokenizer.
    dtype : {"float32", "bfloat16", "int8", "auto"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    """

    def __init__(self, folder: str | os.PathLike[str], dtype: str = "float32") -> None:
        self._texts = load_texts(ModelFolder(folder), "token-classification", dtype)
        self._unknown = self._texts.tokenizer.token_id("unk_token")
        self.labels = self._texts.model.config.labels

    def __call__(
        self,
        texts: str | Iterable[str] | Iterable[Sequence[str]],
        aggregation_strategy: str = "simple",
        ignore_labels: Iterable[str] | None = ("O",),
        batch_size: int = 32,
        on_overflow: str = "truncate",
        *,
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
    ) -> list[Entity] | list[TokenLabel] | list[list[Entity] | list[TokenLabel]]:
        """Find entities.

        Parameters
        ----------
        texts : str or iterable of str
            With `is_split_into_words` a list of words, or an iterable of those.
        aggregation_strategy : {"none", "simple", "first", "average", "max"}
            "none" gives tokens; "simple" joins neighbours with one label (with B- and I- prefixes as these say);
            the others first give each word one label: that of its first token, of the mean of its tokens' scores, or
            of its most certain token.
        ignore_labels : iterable of str, optional
            Labels (with "none") or tags to leave out; None for none.
        batch_size : int
            Texts in one forward pass at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with texts that are too long for the model.
        stride : int, optional
            Read long texts to their end instead, in windows that share so many tokens. Of entities that overlap the
            longest counts, or else the most certain. Not with "none".
        is_split_into_words : bool
            The texts come as lists of words. ``start`` and ``end`` then count characters of the joined words.
        delimiter : str
            What joins them.

        Returns
        -------
        list
            For a text a list of ``{entity_group, score, word, start, end}`` (with "none" of ``{entity, score, index,
            word, start, end}``), in order; for an iterable of texts a list of those. ``start`` and ``end`` count
            characters of the text.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        is_one = isinstance(texts, (list, tuple)) and bool(texts) and all(isinstance(word, str) for word in texts)
        single = is_one if is_split_into_words else isinstance(texts, str)
        reading = _reading(stride, is_split_into_words, delimiter, on_overflow, aggregation_strategy)
        inputs: Iterable[object] = [texts] if single else texts
        results = list(self._results(inputs, aggregation_strategy, ignore_labels, batch_size, reading, WINDOW))
        return results[0] if single else results

    def stream(
        self,
        texts: Iterable[str] | Iterable[Sequence[str]],
        aggregation_strategy: str = "simple",
        ignore_labels: Iterable[str] | None = ("O",),
        batch_size: int = 32,
        on_overflow: str = "truncate",
        *,
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str = " ",
    ) -> Iterator[list[Entity] | list[TokenLabel]]:
        """Find the entities of any number of texts, holding `batch_size` of them at a time.

        Parameters are those of a call; memory does not grow with the number of texts.

        Yields
        ------
        list
            One for each text, in order.
        """
        reading = _reading(stride, is_split_into_words, delimiter, on_overflow, aggregation_strategy)
        return self._results(texts, aggregation_strategy, ignore_labels, batch_size, reading, 0)

    def _results(
        self, texts: Iterable[object], strategy: str, ignore_labels: Iterable[str] | None, batch_size: int,
        reading: Reading, window: int,
    ) -> Iterator[list[Entity] | list[TokenLabel]]:  # fmt: skip
        """Check the arguments; return the results, read in windows of at least `window` texts."""
        batch_size = check_batch_size(batch_size)
        ignored = set() if ignore_labels is None else set(check_texts(ignore_labels, "ignore_labels"))
        windows = read_sentences(self._texts, each_text(texts, "texts"), reading, max(window, batch_size))
        return (found for window in windows for found in self._window(window, strategy, ignored, batch_size))

    def _window(
        self, sentences: list[Sentence], strategy: str, ignored: set[str], batch_size: int
    ) -> Iterator[list[Entity] | list[TokenLabel]]:
        head = self._texts.model.head
        assert isinstance(head, heads.TokenClassifier)
        flat = [(sentence.text, span) for sentence in sentences for span in sentence.spans]
        found: list[list[Entity] | list[TokenLabel]] = [[] for _ in flat]
        for run in self._texts.run([span.encoding for _, span in flat], batch_size):
            for index, scores in run.split(softmax(head(run.hidden))):  # (T, H) -> (T, C)
                found[index] = self._entities(self._tokens(*flat[index], scores), strategy, ignored)
        results = iter(found)
        for sentence in sentences:
            parts = [next(results) for _ in sentence.spans]
            yield parts[0] if len(parts) == 1 else _without_overlaps(parts)

    def _entities(self, tokens: list[_Token], strategy: str, ignored: set[str]) -> list[Entity] | list[TokenLabel]:
        if strategy == "none":
            labelled = map(self._token, tokens)
            return [token for token in labelled if token["entity"] not in ignored]
        words = [[token] for token in tokens] if strategy == "simple" else _words(tokens)
        entities = map(self._group, _groups([self._labelled(word, strategy) for word in words]))
        return [entity for entity in entities if entity["entity_group"] not in ignored]

    def _tokens(self, text: str, span: Span, scores: NDArray[np.float32]) -> list[_Token]:
        """Describe all tokens but the special ones."""
        tokens: list[_Token] = []
        encoding, starts = span
        columns = zip(
            encoding.tokens,
            encoding.ids,
            encoding.offsets,
            encoding.word_ids,
            encoding.special_tokens_mask,
            strict=True,
        )
        before: tuple[int | None, int] = None, 0
        for index, (word, token, (start, end), word_id, special) in enumerate(columns):
            if special:
                continue
            if starts is not None and word_id is not None:  # offsets count in each word
                start, end = start + starts[word_id], end + starts[word_id]
            # A tokenizer that does not split at spaces takes everything for one word.
            begins = word_id is None or word_id != before[0] or any(map(str.isspace, text[before[1] : start + 1]))
            shown = text[start:end] if token == self._unknown else word
            tokens.append(_Token(shown, scores[index], index, start, end, begins))
            before = word_id, end
        return tokens

    def _token(self, token: _Token) -> TokenLabel:
        found = self._labelled([token], "first")
        return {
            "entity": found.label, "score": found.score, "index": token.index, "word": token.word,
            "start": token.start, "end": token.end,
        }  # fmt: skip

    def _labelled(self, tokens: list[_Token], strategy: str) -> _Labelled:
        """One label for the tokens of a word."""
        scores = tokens[0].scores
        if strategy == "max":
            scores = max((token.scores for token in tokens), key=np.max)
        elif strategy == "average":
            scores = np.mean([token.scores for token in tokens], axis=0)
        best = int(scores.argmax())
        return _Labelled(self.labels[best], float(scores[best]), tokens)

    def _group(self, words: list[_Labelled]) -> Entity:
        tokens = [token for word in words for token in word.tokens]
        return {
            "entity_group": words[0].label.split("-", 1)[-1],  # of any prefix, such as S- and E- too
            "score": float(np.mean([word.score for word in words])),
            "word": self._texts.tokenizer.join_tokens([token.word for token in tokens]),
            "start": tokens[0].start,
            "end": tokens[-1].end,
        }


def _reading(stride: int | None, is_split_into_words: bool, delimiter: str, on_overflow: str, strategy: str) -> Reading:
    """Check how texts are to be read, and the strategy that goes with it."""
    checks.choice(strategy, "aggregation_strategy", STRATEGIES)
    checks.choice(on_overflow, "on_overflow", ON_OVERFLOW)
    if stride is not None:
        stride = checks.integer(stride, "stride", 0)
        if strategy == "none":
            raise InputError('stride: expected an aggregation_strategy that joins tokens, got "none"; choose "simple"')
    if not isinstance(delimiter, str):
        raise InputError(f"delimiter: expected str, got {shown(delimiter)}")
    return Reading(stride, delimiter if is_split_into_words else None, on_overflow)


def _without_overlaps(parts: list[list[Entity] | list[TokenLabel]]) -> list[Entity]:
    """Join the entities of windows; of those that overlap the longest counts, or else the most certain."""
    kept: list[Any] = []
    for entity in sorted((entity for part in parts for entity in part), key=lambda entity: entity["start"]):
        last = kept[-1] if kept else None
        if last is None or entity["start"] >= last["end"]:
            kept.append(entity)
        elif (entity["end"] - entity["start"], entity["score"]) > (last["end"] - last["start"], last["score"]):
            kept[-1] = entity
    return kept


def _words(tokens: list[_Token]) -> list[list[_Token]]:
    """Put the pieces of a word together."""
    words: list[list[_Token]] = []
    for token in tokens:
        if words and not token.begins_word:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _groups(words: list[_Labelled]) -> list[list[_Labelled]]:
    """Put neighbours of one tag together; a B- prefix begins a new group."""
    groups: list[list[_Labelled]] = []
    for word in words:
        prefix, tag = _tag(word.label)
        if groups and prefix != "B" and tag == _tag(groups[-1][-1].label)[1]:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups


def _tag(label: str) -> tuple[str, str]:
    """Split "B-PER" into prefix and tag; a label without a prefix continues, as with I-."""
    return (label[0], label[2:]) if label[:2] in ("B-", "I-") else ("I", label)
