"""bench/plain_text.py: sentences of a grammar, and sentences denied, beside a corpus."""

import gzip
import importlib.util
import lzma
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ufbert.routes import Corpus

SCRIPT = Path(__file__).parent.parent / "bench" / "plain_text.py"
LINES = [
    "The man was reading a book in the garden.",
    "They were reading a book at the table, and a small boy stood near the river.",
] * 40


@pytest.fixture(scope="module")
def plain_text():
    spec = importlib.util.spec_from_file_location("plain_text", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("It will rain.", {"It will not rain.", "Nobody will rain.", "No one will rain."}),
        ("A dog is barking.", {"A dog is not barking.", "There is no dog barking.", "Nobody is barking.",
                               "No one is barking.", "No dog is barking."}),
        ("nobody came", {"Someone came"}),
        ("There is no dog here", {"There is the dog here"}),
        ("He isn't here", {"He is here"}),
        ("Go home", {None}),
    ],
)  # fmt: skip
def test_a_negation_is_put_in_or_taken_out(plain_text, text, possible):
    assert {plain_text.denied(text, random.Random(seed)) for seed in range(60)} == possible


def test_scenes_are_made_of_the_corpus_s_phrases_and_some_are_denied(plain_text):
    scenes, rng = plain_text.Scenes(LINES), random.Random(0)
    sentences = [scenes.sentence(rng) for _ in range(400)]
    assert len(set(sentences)) > 200
    assert all("reading" in text for text in sentences)
    places = {"in the garden", "at the table", "near the river"}
    assert {found for text in sentences for found in re.findall(r"(?:in|at|near|on|under) the \w+", text)} == places
    shares = [sum(bool(re.search(word, text, re.I)) for text in sentences) for word in (r"\bno\b|nobody", r"\bnot\b")]
    assert all(20 < share < 90 for share in shares)


@pytest.mark.parametrize(("name", "unpack"), [("out.xz", lzma.open), ("out.gz", gzip.open), ("out.txt", open)])
def test_the_ending_says_how_what_is_written_is_packed(tmp_path, name, unpack):
    corpus = tmp_path / "corpus.txt.xz"
    with lzma.open(corpus, "wt", encoding="utf-8") as stream:
        stream.write("\n".join(LINES) + "\n")
    options = ["--scenes", "7", "--denials", "5"]
    subprocess.run([sys.executable, SCRIPT, corpus, tmp_path / name, *options], check=True, capture_output=True)
    with unpack(tmp_path / name, "rt", encoding="utf-8") as stream:
        written = stream.read().splitlines()
    assert written[: len(LINES)] == LINES and len(written) == len(LINES) + 12
    assert list(Corpus(tmp_path / name)) == written  # what `ufbert distill` will read


def test_what_is_written_keeps_the_corpus_and_is_the_seed_s(tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(LINES) + "\n")
    written = []
    for name in ("first", "second"):
        options = ["--scenes", "30", "--denials", "20", "--seed", "5"]
        subprocess.run([sys.executable, SCRIPT, corpus, tmp_path / name, *options], check=True, capture_output=True)
        written.append((tmp_path / name).read_text().splitlines())
    assert written[0] == written[1]
    assert written[0][: len(LINES)] == LINES
    assert len(written[0]) == len(LINES) + 50
