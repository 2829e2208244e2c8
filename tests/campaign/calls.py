"""Calls of each task with texts of all lengths: resident memory stays level."""

from pathlib import Path

from folders import scratch, seeds
from mutate import generator
from watch import Fault

import ufbert

CALLS = 100  # in a case
SETTLED = 30  # cases of a process, after which its memory is level
GROWTH = 24 * 2**20  # bytes that it may grow by from then on
WORDS = "the cat sat on a mat while it rained in paris and nobody moved".split()


class Calls:
    """Cases of `CALLS` calls of one task."""

    hang = 60.0
    inputs = CALLS

    def __init__(self):
        folders = seeds(scratch())
        sparse, late = ufbert.SparseEncoder(folders["sparse"]), ufbert.MultiVectorEncoder(folders["late"])
        fill, zero = ufbert.FillMask(folders["fill"]), ufbert.ZeroShotClassifier(folders["zero-shot"])
        answer, cross = ufbert.QuestionAnswerer(folders["qa"]), ufbert.CrossEncoder(folders["cross"])
        self.tasks = [
            ufbert.SentenceEncoder(folders["sentence"]).encode,
            ufbert.TextClassifier(folders["labels"]),
            ufbert.TokenClassifier(folders["ner"]),
            lambda text: cross.predict([("the cat", text)]),
            lambda text: answer("who", text),
            lambda text: fill(f"[MASK] {text}"),
            lambda text: zero(text, ["cat", "rain"]),
            sparse.encode,
            lambda text: late.similarity(late.encode_query([text]), late.encode_document([text, "a"])),
        ]
        self.done, self.level = 0, 0

    def __call__(self, seed, number, acts):
        rng = generator(seed, number)
        task = self.tasks[number % len(self.tasks)]
        for _ in range(CALLS):
            task(" ".join(rng.choices(WORDS, k=rng.choice([1, rng.randint(1, 12), rng.randint(1, 300)]))))
        self.done += 1
        now = resident()
        if self.done <= SETTLED:
            self.level = max(self.level, now)
        elif now > self.level + GROWTH:
            raise Fault(f"{now >> 20} MiB after {self.done} cases, {self.level >> 20} MiB after the first {SETTLED}")


def resident():
    """Resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
