"""What each command does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..convert import convert
from ..errors import InputError
from ..info import info
from ..tasks import FillMask, QuestionAnswerer, SentenceEncoder, TextClassifier, TokenClassifier
from ..tasks.run import windows
from .routing import prune_model, show_routes
from .streams import open_writer, progress, read_texts

__all__ = ["COMMANDS"]


def embed(arguments: argparse.Namespace) -> int:
    """Embeddings, or with --query a ranking."""
    encoder = SentenceEncoder(
        arguments.model, arguments.max_seq_length, arguments.pooling, arguments.on_overflow, arguments.dtype
    )
    options = {
        "batch_size": arguments.batch_size,
        "normalize_embeddings": arguments.normalize,
        "truncate_dim": arguments.truncate_dim,
        "prompt": arguments.prompt,
        "prompt_name": arguments.prompt_name,
    }
    if arguments.query is not None:
        return _rank(encoder, arguments, options)
    width = min(arguments.truncate_dim or encoder.dimension, encoder.dimension)
    seen: list[str] = []  # texts read ahead of their embeddings: one batch
    with (
        open_writer(arguments, lambda _, row: " ".join(f"{value:.7g}" for value in row), "embedding", width) as writer,
        progress(arguments) as bar,
    ):
        for row in encoder.encode_iter(_remember(read_texts(arguments), seen), **options):
            writer.write(seen.pop(0), row)
            bar.update()
    return 0


def _rank(encoder: SentenceEncoder, arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    texts = list(read_texts(arguments))
    query = encoder.encode(arguments.query, **options)
    embeddings = encoder.encode(texts, show_progress_bar=not arguments.quiet and len(texts) > 1000, **options)
    scores = encoder.similarity(query, embeddings)[0]
    order = np.argsort(-scores, kind="stable")[: arguments.top]
    with open_writer(arguments, lambda text, score: f"{score:.4f}\t{text}", "score") as writer:
        for index in order:
            writer.write(texts[index], float(scores[index]))
    return 0


def fill_mask(arguments: argparse.Namespace) -> int:
    """Tokens for each mask."""
    task = FillMask(arguments.model, arguments.dtype)
    return _run(arguments, _plain_fills, "fills", lambda texts: task(texts, arguments.top_k, **_common(arguments)))


def classify(arguments: argparse.Namespace) -> int:
    """Labels."""
    task = TextClassifier(arguments.model, arguments.dtype)

    def run(texts: list[str]) -> list[Any]:
        inputs = [_pair(text) for text in texts] if arguments.pairs else texts
        results = task(inputs, arguments.top_k, **_common(arguments))
        return [[result] for result in results] if arguments.top_k == 1 else results

    return _run(arguments, _plain_labels, "labels", run)


def ner(arguments: argparse.Namespace) -> int:
    """Entities."""
    task = TokenClassifier(arguments.model, arguments.dtype)
    strategy = arguments.aggregation_strategy
    return _run(arguments, _plain_entities, "entities", lambda texts: task(texts, strategy, **_common(arguments)))


def qa(arguments: argparse.Namespace) -> int:
    """Answers to one question from each text."""
    task = QuestionAnswerer(arguments.model, arguments.dtype)

    def run(texts: list[str]) -> list[Any]:
        questions = [arguments.question] * len(texts)
        results = task(questions, texts, top_k=arguments.top_k, batch_size=arguments.batch_size)
        return [[result] for result in results] if arguments.top_k == 1 else results

    return _run(arguments, _plain_answers, "answers", run)


def show_info(arguments: argparse.Namespace) -> int:
    """What is installed."""
    facts = info()
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else "none" if value is None else value
        print(f"{name.replace('_', ' '):<17} {shown}")
    return 0


def convert_folder(arguments: argparse.Namespace) -> int:
    """A model folder in another dtype."""
    print(convert(arguments.source, arguments.target, arguments.dtype))
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "embed": embed,
    "fill-mask": fill_mask,
    "classify": classify,
    "ner": ner,
    "qa": qa,
    "info": show_info,
    "convert": convert_folder,
    "routes": show_routes,
    "prune": prune_model,
}


def _run(
    arguments: argparse.Namespace, plain: Callable[[str, Any], str], key: str, task: Callable[[list[str]], list[Any]]
) -> int:
    """Run a task over the texts, some at a time, and write each result when it is there."""
    done = 0
    with open_writer(arguments, plain, key) as writer, progress(arguments) as bar:
        for window in windows(read_texts(arguments), arguments.batch_size):
            try:
                results = task(window)
            except InputError as error:
                raise InputError(f"texts {done} to {done + len(window) - 1}, counted from 0: {error}") from None
            for text, result in zip(window, results, strict=True):
                writer.write(text, result)
            done += len(window)
            bar.update(len(window))
    return 0


def _common(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"batch_size": arguments.batch_size, "on_overflow": arguments.on_overflow}


def _remember(texts: Iterator[str], seen: list[str]) -> Iterator[str]:
    for text in texts:
        seen.append(text)
        yield text


def _pair(text: str) -> tuple[str, str]:
    parts = text.split("\t")
    if len(parts) != 2:
        raise InputError(f"--pairs: expected two texts separated by one tab, got {len(parts)} in {text!r:.80}")
    return parts[0], parts[1]


def _plain_fills(_: str, fills: list[Any]) -> str:
    rows = fills if isinstance(fills[0], dict) else [fill for mask in fills for fill in mask]
    return "\n".join(f"{fill['score']:.4f}\t{fill['token_str']}\t{fill['sequence']}" for fill in rows)


def _plain_labels(text: str, labels: list[dict[str, Any]]) -> str:
    return "\t".join(f"{label['label']}\t{label['score']:.4f}" for label in labels) + f"\t{text}"


def _plain_entities(text: str, entities: list[dict[str, Any]]) -> str:
    rows = [
        f"{e.get('entity_group') or e.get('entity')}\t{e['score']:.4f}\t{e['start']}\t{e['end']}\t{e['word']}"
        for e in entities
    ]
    return "\n".join([f"# {text}", *rows])


def _plain_answers(_: str, answers: list[dict[str, Any]]) -> str:
    return "\n".join(f"{a['score']:.4f}\t{a['start']}\t{a['end']}\t{a['answer']}" for a in answers)
