"""A training corpus with plain English added to it: what people, animals and things do, and sentences denied.

    python bench/plain_text.py CORPUS OUT [--scenes N] [--denials N] [--seed N]

Writes the corpus's lines, then N sentences of a small grammar over phrases that the corpus holds ("Two boys are not
carrying a boat near the river"), then N short sentences of the corpus with a negation put in or taken out; packed if
OUT ends with .xz or .gz. A corpus of news and prose has few of either, and trees that were distilled on it take "is not
playing" for "is playing". No labels. The grammar's sentences make little sense: the teacher has an embedding for them
all the same.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ufbert.checkpoint.writing import whole_file
from ufbert.routes import Corpus

ONE = (
    "man woman boy girl child baby person guy lady kid worker soldier singer dancer driver player cook artist student "
    "teacher doctor farmer musician group crowd team couple family dog cat bird horse monkey bear animal car train boat"
).split()
MANY = (
    "men women boys girls children kids people workers soldiers singers dancers players students friends musicians "
    "adults teenagers dogs cats birds horses animals cars boats"
).split()
BE = ("is", "are", "was", "were")
PLACES = "in on at near under through into over behind beside across along down from around outside".split()
AFTER_NOUNS = {"", *PLACES, *BE, *"and or to of with for by that which who as but when while".split()}
NO_VERBS = set(
    "going being having during morning evening according including regarding concerning following thing something "
    "anything nothing everything king ring spring".split()
)
NO_NOUNS = set(
    "a an the of and to in that it he she they his her as for with on at by from this was is are be more most other "
    "same first last own very one".split()
)
LONGEST = 16  # words of a sentence that is denied


class Scenes:
    """A grammar over the phrases of a corpus."""

    def __init__(self, lines: list[str]) -> None:
        verbs, objects, places, adjectives = (Counter[tuple[str, ...]]() for _ in range(4))
        beings = {*ONE, *MANY}
        for line in lines:
            words = re.findall(r"[a-z']+", line.lower())
            for before, first, second, third, after in zip(
                ["", *words], words, [*words[1:], ""], [*words[2:], "", ""], [*words[3:], "", "", ""], strict=False
            ):
                is_noun = third and after in AFTER_NOUNS  # not an adjective before one
                if first.endswith("ing") and first not in NO_VERBS:
                    if before in BE:
                        verbs[first,] += 1
                    if second in ("a", "an", "the", "his", "her", "some") and is_noun:
                        objects[first, second, third] += 1
                elif first in PLACES and second in ("a", "an", "the") and is_noun:
                    places[first, second, third] += 1
                elif first in ("a", "an", "the", "two") and third in beings and second not in beings:
                    adjectives[second,] += 1
        self._verbs = _table(verbs, 5)
        known = set(self._verbs[0])
        self._objects = _table(Counter({key: count for key, count in objects.items() if key[0] in known}), 3)
        self._places, self._adjectives = _table(places, 20), _table(adjectives, 8)

    def sentence(self, rng: random.Random) -> str:
        """One sentence, with a full stop or without."""
        subject, be = self._subject(rng)
        action = self._action(rng)
        form = rng.random()
        if form < 0.08:
            text = f"there {be} no {subject.split(' ', 1)[1]} {action}"
        elif form < 0.12:
            text = f"{rng.choice(('nobody', 'no one'))} is {action}"
        elif form < 0.22:
            text = f"{subject} {be} not {action}"
        elif form < 0.34:
            other, other_be = self._subject(rng)
            text = f"{subject} {be} {action} and {other} {other_be} {self._action(rng)}"
        elif form < 0.42:
            text = f"{subject} {be} {action} {rng.choice(('and', 'while'))} {self._action(rng)}"
        elif form < 0.48:
            text = f"{subject}, who {be} {action}, {be} {self._action(rng)}"
        elif form < 0.53:
            text = f"{subject} {action}"
        else:
            text = f"{subject} {be} {action}"
        return _capital(text) + rng.choice((".", ""))

    def _subject(self, rng: random.Random) -> tuple[str, str]:
        """Someone, and the form of "to be"."""
        if rng.random() < 0.65:
            determiner, noun, be = rng.choice(("a", "a", "the", "one")), rng.choice(ONE), "is"
        else:
            determiner = rng.choice(("two", "some", "the", "three", "several", "many", "a group of"))
            noun, be = rng.choice(MANY), "are"
        if rng.random() < 0.3:
            noun = f"{_pick(self._adjectives, rng)} {noun}"
        if determiner == "a" and noun[0] in "aeiou":
            determiner = "an"
        place = f" {_pick(self._places, rng)}" if rng.random() < 0.1 else ""
        return f"{determiner} {noun}{place}", be

    def _action(self, rng: random.Random) -> str:
        """What is being done, and at times where."""
        if rng.random() < 0.65:
            action, at = _pick(self._objects, rng), 0.35
        else:
            action, at = _pick(self._verbs, rng), 0.75
        return f"{action} {_pick(self._places, rng)}" if rng.random() < at else action


Table = tuple[list[str], list[float]]  # phrases and their weights


def _table(counts: Counter[tuple[str, ...]], fewest: int) -> Table:
    """Phrases that occur often enough. Square roots: the most common ones would be nearly all."""
    kept = {key: count**0.5 for key, count in counts.items() if count >= fewest and key[-1] not in NO_NOUNS}
    return [" ".join(key) for key in kept], list(kept.values())


def _pick(table: Table, rng: random.Random) -> str:
    return rng.choices(*table)[0]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


WORDS = "a|an|the|some|two|three|several|many|my|his|her|their|our|your|this|that"
NEGATION = re.compile(r"\b(not|no|never|nobody|none|nothing|without|neither|nor|cannot)\b|n't\b", re.I)
AUXILIARY = re.compile(
    r"\b(is|are|was|were|can|could|will|would|should|must|has|have|had|do|does|did|may|might)\b", re.I
)
BEGINNING = re.compile(rf"^(?:{WORDS}) ((?:\w+ )?\w+) (is|are|was|were) ", re.I)
SUBJECT = re.compile(
    r"^(?:i|you|he|she|it|we|they|[A-Z][a-z]+|(?:a|an|the) \w+) (is|was|has|had|can|will|would|could) ", re.I
)
DETERMINER = re.compile(rf"\b({WORDS})\b", re.I)
TAKEN_OUT = (  # what is negated, and what is put in its place
    (re.compile(r"^(?:no one|nobody)\b", re.I), "Someone"),
    (re.compile(r"\bno (?!one\b)", re.I), "the "),
    (re.compile(r"\s+(?:not|never)\b|n't\b", re.I), ""),
)


def denied(text: str, rng: random.Random) -> str | None:
    """The sentence with a negation put in, or the one that it has taken out; None where neither can be done."""
    if NEGATION.search(text):
        changed = text
        for pattern, instead in TAKEN_OUT:
            changed = pattern.sub(instead, changed)
        return _capital(changed) if changed != text else None
    ways: list[Callable[[], str]] = []
    if found := AUXILIARY.search(text):
        ways += [lambda: f"{text[: found.end()]} not{text[found.end() :]}"] * 3
    if BEGINNING.match(text):
        ways += [lambda: BEGINNING.sub(lambda m: f"There {m[2].lower()} no {m[1]} ", text)] * 2
    if SUBJECT.match(text):
        ways += [lambda: SUBJECT.sub(lambda m: f"{rng.choice(('Nobody', 'No one'))} {m[1]} ", text)] * 2
    if determiners := list(DETERMINER.finditer(text)):
        chosen = rng.choice(determiners)
        ways.append(lambda: _capital(f"{text[: chosen.start()]}no{text[chosen.end() :]}"))
    return rng.choice(ways)() if ways else None


def opened(file: Path, suffix: str) -> IO[str]:
    """A file to write text into, packed as the ending says."""
    ways = {".xz": lzma.open, ".gz": gzip.open}
    return ways.get(suffix, open)(file, "wt", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="one text a line: plain, .xz or .gz")
    parser.add_argument("out", type=Path, help="file to write: plain, .xz or .gz")
    parser.add_argument("--scenes", type=int, default=300_000, metavar="N", help="default: 300,000")
    parser.add_argument("--denials", type=int, default=200_000, metavar="N", help="default: 200,000")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    arguments = parser.parse_args()
    lines, rng = list(Corpus(arguments.corpus)), random.Random(arguments.seed)
    scenes = Scenes(lines)
    short = [line for line in lines if 3 <= len(line.split()) <= LONGEST]
    with whole_file(arguments.out) as part, opened(part, arguments.out.suffix) as stream:
        stream.writelines(f"{line}\n" for line in lines)
        stream.writelines(f"{scenes.sentence(rng)}\n" for _ in range(arguments.scenes))
        written = 0
        for line in rng.sample(short, len(short)):
            if written == arguments.denials:
                break
            if text := denied(line, rng):
                stream.write(f"{text}\n")
                written += 1
    print(f"{arguments.out}: {len(lines):,} lines, {arguments.scenes:,} scenes, {written:,} denials")


if __name__ == "__main__":
    main()
