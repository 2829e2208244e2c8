"""Classify texts, or pairs of texts.

Prints for each text its most probable label with its score, and the text.
The model is a folder with a classification head (BertForSequenceClassification
and the like); the bundled one tells positive from negative opinions.

With --labels the labels are yours, and the model one of natural-language
inference: it says how far a text entails a sentence with each label.

  ufbert classify "A charming, funny film."
  ufbert classify --model NLI_FOLDER --labels "sport, politics" "The striker scored twice."
  ufbert classify --model FOLDER --format jsonl < texts.txt
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..errors import InputError
from ..tasks import TextClassifier, ZeroShotClassifier
from ..tasks.text_classifier import FUNCTIONS
from ..tasks.zero_shot_classifier import TEMPLATE
from .files import add_files, over_files, run_files
from .options import add_texts, positive
from .streams import write_results

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_texts(parser, default_model="the bundled sentiment classifier", formats=("plain", "jsonl", "parquet"))
    add_files(parser, "--pair-column", "the column of the second texts of pairs")
    parser.add_argument("--top-k", type=positive, default=1, metavar="N", help="labels for each text (default: 1)")
    parser.add_argument(
        "--function-to-apply",
        choices=tuple(FUNCTIONS),
        help="what makes scores of the model's numbers (default: as the model says: none for regression, sigmoid for "
        "several labels at once, else softmax)",
    )
    parser.add_argument("--pairs", action="store_true", help="each text is two texts, separated by a tab")
    parser.add_argument(
        "--labels", metavar="A,B,...", help="labels of yours, for a model of natural-language inference"
    )
    parser.add_argument(
        "--template", metavar="TEXT", help="the sentence with a label at {} (default: This example is {}.)"
    )
    parser.add_argument("--multi-label", action="store_true", help="score each of --labels by itself")


def run(arguments: argparse.Namespace) -> int:
    """Write the labels of each text."""
    if arguments.labels is not None:
        if over_files(arguments):
            raise InputError("--labels: expected it without --column, got both; leave one out")
        return write_results(arguments, _plain, "labels", partial(_own_labels, arguments))
    if arguments.template is not None or arguments.multi_label:
        raise InputError("--template, --multi-label: expected --labels with them, got none; give your labels")
    options = {"top_k": arguments.top_k, "function_to_apply": arguments.function_to_apply}
    if over_files(arguments):
        return run_files(arguments, options, {}, arguments.pair_column)
    task = TextClassifier(arguments.model, arguments.dtype)
    options |= {"batch_size": arguments.batch_size, "on_overflow": arguments.on_overflow}

    def labels(texts: Iterator[str]) -> Iterator[Any]:
        inputs: Iterator[Any] = map(_pair, texts) if arguments.pairs else texts
        results = task.stream(inputs, **options)
        return ([result] for result in results) if arguments.top_k == 1 else results

    return write_results(arguments, _plain, "labels", labels)


def _own_labels(arguments: argparse.Namespace, texts: Iterator[str]) -> Iterator[Any]:
    if arguments.model is None or arguments.pairs or arguments.function_to_apply is not None:
        raise InputError(
            "--labels: expected --model with a model of natural-language inference, and neither --pairs nor "
            "--function-to-apply"
        )
    task = ZeroShotClassifier(arguments.model, arguments.dtype)
    template = TEMPLATE if arguments.template is None else arguments.template
    options = {"batch_size": arguments.batch_size, "on_overflow": arguments.on_overflow}
    for found in task.stream(texts, arguments.labels, template, arguments.multi_label, **options):
        ranked = zip(found["labels"], found["scores"], strict=True)
        yield [{"label": label, "score": score} for label, score in ranked][: arguments.top_k]


def _pair(text: str) -> tuple[str, str]:
    parts = text.split("\t")
    if len(parts) != 2:
        raise InputError(f"--pairs: expected two texts separated by one tab, got {len(parts)} in {text!r:.80}")
    return parts[0], parts[1]


def _plain(text: str, labels: list[dict[str, Any]]) -> str:
    return "\t".join(f"{label['label']}\t{label['score']:.4f}" for label in labels) + f"\t{text}"
