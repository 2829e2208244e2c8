"""Memory of each task over many texts that come from a generator.

python bench/streams.py [--texts 200000] [--after 10000]

Small models of tests/golden run the tasks, each in a process of its own. Printed is the resident memory after the first
texts, at the end, and how much it grew in between.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ufbert

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
WORDS = "the cat sat on a mat while it rained in paris and nobody moved".split()


def texts(count: int, mask: bool = False) -> Iterator[str]:
    """Texts of 3 to 12 words, with `mask` one of them [MASK]."""
    draw = random.Random(0)
    for _ in range(count):
        words = draw.choices(WORDS, k=draw.randint(3, 12))
        if mask:
            words[draw.randrange(len(words))] = "[MASK]"
        yield " ".join(words)


def pairs(count: int) -> Iterator[tuple[str, str]]:
    """Questions and contexts, or queries and documents."""
    yield from zip(texts(count), texts(count), strict=True)


def tasks(count: int) -> dict[str, Callable[[], Iterator[Any]]]:
    """What each task gives for `count` texts, one by one."""
    folder = GOLDEN / "pipelines"
    labels, answers = folder / "text-classification", folder / "question-answering"
    return {
        "SentenceEncoder": lambda: ufbert.SentenceEncoder(labels, pooling="mean").stream(texts(count)),
        "TextClassifier": lambda: ufbert.TextClassifier(labels).stream(texts(count)),
        "CrossEncoder": lambda: ufbert.CrossEncoder(labels).stream(pairs(count)),
        "FillMask": lambda: ufbert.FillMask(folder / "fill-mask").stream(texts(count, mask=True)),
        "TokenClassifier": lambda: ufbert.TokenClassifier(folder / "token-classification").stream(texts(count)),
        "QuestionAnswerer": lambda: ufbert.QuestionAnswerer(answers).stream(texts(count), texts(count)),
    }


def resident() -> float:
    """Resident memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def measure(name: str, count: int, after: int) -> tuple[int, float, float]:
    """Results that a task gave, memory after the first and after all."""
    done, first = 0, 0.0
    for _ in tasks(count)[name]():
        done += 1
        if done == after:
            first = resident()
    return done, first, resident()


def main() -> None:
    """Measure every task and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--after", type=int, default=10_000)
    arguments = parser.parse_args()
    print("| task | texts | MB after the first | MB at the end | growth |\n|---|---|---|---|---|")
    for name in tasks(0):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            done, first, last = pool.apply(measure, (name, arguments.texts, arguments.after))
        print(f"| {name} | {done:,} | {first:.1f} | {last:.1f} | {last - first:+.1f} |", flush=True)


if __name__ == "__main__":
    main()
