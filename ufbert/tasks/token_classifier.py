"""Token classification: named entities, parts of speech."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..activations import softmax
from .load import labels, load_parts
from .run import check_batch_size, check_choice, check_overflow, check_texts, hidden_states

__all__ = ["TokenClassifier"]

STRATEGIES = ("none", "simple", "first", "average", "max")


class TokenClassifier:
    """Labels the tokens of texts, with the results of transformers' token-classification pipeline.

    Parameters
    ----------
    folder : str or path
        A folder with a token classifier and its tokenizer.
    dtype : {"float32", "bfloat16", "int8"}
        Precision of the matrix multiplications; see `ufbert.load`.

    Raises
    ------
    CheckpointError
        If the folder is not usable.
    """

    def __init__(self, folder: str | os.PathLike[str], dtype: str = "float32") -> None:
        self._model, self._head, self._tokenizer = load_parts(folder, "token-classification", dtype)
        self.labels = labels(self._model)

    def __call__(
        self,
        texts: str | Sequence[str],
        aggregation_strategy: str = "simple",
        ignore_labels: Sequence[str] | None = ("O",),
        batch_size: int = 32,
        on_overflow: str = "truncate",
    ) -> list[Any]:
        """Find entities.

        Parameters
        ----------
        texts : str or sequence of str
        aggregation_strategy : {"none", "simple", "first", "average", "max"}
            "none" gives tokens; "simple" joins neighbours with one label (with B- and I- prefixes as these say);
            the others first give each word one label: that of its first token, of the mean of its tokens' scores, or
            of its most certain token.
        ignore_labels : sequence of str, optional
            Labels (with "none") or tags to leave out; None for none.
        batch_size : int
            Texts in one pass at most.
        on_overflow : {"truncate", "warn", "error"}
            What to do with texts that are too long for the model.

        Returns
        -------
        list
            For a text a list of ``{entity_group, score, word, start, end}`` (with "none" of ``{entity, score, index,
            word, start, end}``), in order; for a sequence of texts a list of those. ``start`` and ``end`` count
            characters of the text.

        Raises
        ------
        InputError
            If an argument does not fit.
        """
        check_choice(aggregation_strategy, "aggregation_strategy", STRATEGIES)
        batch_size = check_batch_size(batch_size)
        single = isinstance(texts, str)
        texts = check_texts(texts, "texts")
        ignored = set() if ignore_labels is None else set(check_texts(ignore_labels, "ignore_labels"))
        encodings, truncated = self._tokenizer.encode(texts, offsets=True)
        check_overflow(truncated, self._tokenizer.max_length, on_overflow)
        results: list[Any] = [None] * len(texts)
        for indices, batch, hidden in hidden_states(self._model, encodings, batch_size):
            scores = softmax(self._head(hidden))  # (T, H) -> (T, C)
            for at, index in enumerate(indices):
                own = scores[batch.cu_seqlens[at] : batch.cu_seqlens[at + 1]]
                entities = self._entities(texts[index], encodings[index], own, aggregation_strategy)
                name = "entity" if aggregation_strategy == "none" else "entity_group"
                results[index] = [entity for entity in entities if entity[name] not in ignored]
        return results[0] if single else results

    def _entities(self, text: str, encoding: Any, scores: np.ndarray, strategy: str) -> list[dict[str, Any]]:
        tokens = self._tokens(text, encoding, scores)
        if strategy in ("none", "simple"):
            entities = [self._labelled(token, token["scores"]) for token in tokens]
        else:
            entities = [self._word(word, strategy) for word in _words(tokens)]
        return entities if strategy == "none" else [self._group(group) for group in _groups(entities)]

    def _tokens(self, text: str, encoding: Any, scores: np.ndarray) -> list[dict[str, Any]]:
        """Describe all tokens but the special ones."""
        unknown = self._tokenizer.token_id("unk_token")
        tokens = []
        for index, special in enumerate(encoding.special_tokens_mask):
            if special:
                continue
            start, end = encoding.offsets[index]
            word, is_unknown = encoding.tokens[index], encoding.ids[index] == unknown
            tokens.append(
                {
                    "word": text[start:end] if is_unknown else word,
                    "scores": scores[index],
                    "start": start,
                    "end": end,
                    "index": index,
                    # a piece inside a word is spelled longer ("##ing") than what it stands for
                    "is_subword": not is_unknown and len(word) != end - start,
                }
            )
        return tokens

    def _labelled(self, token: dict[str, Any], scores: np.ndarray) -> dict[str, Any]:
        best = int(scores.argmax())
        entity = {"entity": self.labels[best], "score": float(scores[best])}
        return entity | {key: token[key] for key in ("index", "word", "start", "end")}

    def _word(self, tokens: list[dict[str, Any]], strategy: str) -> dict[str, Any]:
        """One label for the tokens of a word."""
        if strategy == "first":
            scores = tokens[0]["scores"]
        elif strategy == "max":
            scores = max((token["scores"] for token in tokens), key=np.max)
        else:
            scores = np.mean([token["scores"] for token in tokens], axis=0)
        word = self._tokenizer.join_tokens([token["word"] for token in tokens])
        return self._labelled(tokens[0] | {"word": word, "end": tokens[-1]["end"]}, scores)

    def _group(self, entities: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "entity_group": entities[0]["entity"].split("-", 1)[-1],  # of any prefix, such as S- and E- too
            "score": float(np.mean([entity["score"] for entity in entities])),
            "word": self._tokenizer.join_tokens([entity["word"] for entity in entities]),
            "start": entities[0]["start"],
            "end": entities[-1]["end"],
        }


def _words(tokens: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Put the pieces of a word together."""
    words: list[list[dict[str, Any]]] = []
    for token in tokens:
        if words and token["is_subword"]:
            words[-1].append(token)
        else:
            words.append([token])
    return words


def _groups(entities: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Put neighbours of one tag together; a B- prefix begins a new group."""
    groups: list[list[dict[str, Any]]] = []
    for entity in entities:
        prefix, tag = _tag(entity["entity"])
        if groups and prefix != "B" and tag == _tag(groups[-1][-1]["entity"])[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return groups


def _tag(label: str) -> tuple[str, str]:
    """Split "B-PER" into prefix and tag; a label without a prefix continues, as with I-."""
    return (label[0], label[2:]) if label[:2] in ("B-", "I-") else ("I", label)
