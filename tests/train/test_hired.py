"""bench/hired.py: what travels to a hired GPU, what is done there, what comes back; on the CPU here."""

import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from conftest import some_texts, write_sentence_model

import ufbert
from ufbert.errors import InputError
from ufbert.train.distill import Recipe, distill
from ufbert.train.distill.teacher import Teacher
from ufbert.train.tokens import TokenisedLines, TokenisedTexts

SCRIPT = Path(__file__).parents[2] / "bench" / "hired.py"
SMALL = "grow-tokens=2000", "batch-tokens=512", "max-length=20"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def hired(*words, **options):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, **options)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("teacher") / "tiny")


@pytest.fixture(scope="module")
def sent(teacher, tmp_path_factory):
    """What `pack` makes: a teacher, two corpora, a model to start from."""
    root = tmp_path_factory.mktemp("sent")
    for name, seed, count in (("a.txt", 0, 1_100), ("b.txt", 1, 200), ("held-out.txt", 2, 60)):
        (root / name).write_text("\n".join(some_texts(count, seed=seed)) + "\n")
    recipe = Recipe(
        num_trees=2, depth=2, grow_tokens=5_000, local_tokens=0, tokens=1_000, batch_tokens=512, max_length=20
    )
    start = distill(teacher, root / "a.txt", root / "start", recipe)
    corpora = "--corpus", root / "a.txt", "--corpus", root / "b.txt"
    made = hired(
        "pack", teacher, *corpora, "--start", f"2x2={start}", "--held-out", root / "held-out.txt", "--out", root / "out"
    )
    assert made.returncode == 0, made.stderr
    return root


@pytest.fixture
def work(sent, tmp_path):
    made = hired("unpack", sent / "out" / "first", sent / "out" / "2x2", "--work", tmp_path / "work")
    assert made.returncode == 0, made.stderr
    return tmp_path / "work"


def train(work, out, models, seconds):
    words = [word for model in models for word in ("--model", model)]
    places = "--work", str(work), "--out", str(out), "--device", "cpu", "--seconds", str(seconds)
    return [sys.executable, str(SCRIPT), "train", *places, *words, "--option", *SMALL]


def joined(out, name, target):
    whole = b"".join(lzma.decompress(file.read_bytes()) for file in sorted(out.glob(f"{name}.tar.xz.*")))
    with tarfile.open(fileobj=BytesIO(whole)) as archive:
        archive.extractall(target, filter="data")
    return target / name


def test_what_travels_is_what_is_unpacked(sent, teacher, work):
    first, second = ({file.name for file in (sent / "out" / name).iterdir()} for name in ("first", "2x2"))
    assert first == {"teacher.tar.xz", "corpus-0.tokens.xz"}
    assert second == {"2x2.tar.xz", "corpus-1.tokens.xz", "held-out.txt"}
    assert sorted(file.name for file in work.iterdir()) == [
        "2x2", "corpus-0.tokens", "corpus-1.tokens", "held-out.txt", "teacher",
    ]  # fmt: skip
    tokenizer = Teacher(os.fspath(teacher)).tokenizer
    lines = TokenisedLines.read(work, tokenizer)
    texts = [*some_texts(1_100, seed=0), *some_texts(200, seed=1)]
    wanted = TokenisedTexts.of(texts, tokenizer)
    np.testing.assert_array_equal(lines.texts.ids, wanted.ids)
    np.testing.assert_array_equal(lines.texts.starts, wanted.starts)
    again = TokenisedTexts.of(lines[:], tokenizer)  # made of texts once more
    np.testing.assert_array_equal(again.ids, wanted.ids)
    with pytest.raises(IndexError):
        lines[len(lines)]


def test_two_models_are_trained_measured_and_come_back(work, tmp_path):
    out = tmp_path / "out"
    made = subprocess.run(
        train(work, out, ["2x2=1", "none-1x3=1"], 40), capture_output=True, text=True, env=ENVIRONMENT
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    with tarfile.open(out / "report.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    for name in ("2x2", "none-1x3"):
        encoder = ufbert.SentenceEncoder(joined(out, name, tmp_path / "back"))
        texts = (work / "held-out.txt").read_text().splitlines()
        mine = encoder.encode(texts, normalize_embeddings=True)
        wanted = ufbert.SentenceEncoder(work / "teacher").encode(texts, normalize_embeddings=True)
        scores = json.loads((tmp_path / "report" / f"{name}.scores.json").read_text())
        assert scores["int8"]["cosine"] == pytest.approx(float((mine * wanted).sum(1).mean()), abs=1e-3)
        log = json.loads((tmp_path / "report" / f"new-{name}.training" / "log.json").read_text())
        assert (log["source"]["start"] == name) == (name == "2x2")


def test_a_training_that_was_killed_goes_on_and_is_written_when_no_time_is_left(work, tmp_path):
    out, state = tmp_path / "out", work / "new-2x2.training" / "state.safetensors"
    first = subprocess.Popen(train(work, out, ["2x2=1"], 600), env=ENVIRONMENT, start_new_session=True)
    while not state.is_file() and first.poll() is None:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (work / "new-2x2").exists()
    made = subprocess.run(train(work, out, ["2x2=1"], 1), capture_output=True, text=True, env=ENVIRONMENT)
    assert made.returncode == 0, made.stdout + made.stderr
    assert ufbert.SentenceEncoder(joined(out, "2x2", tmp_path / "back")).dimension > 0


def test_a_training_that_fails_is_said(work, tmp_path):
    (work / "held-out.txt").unlink()
    made = subprocess.run(train(work, tmp_path / "out", ["1x2=1"], 1), capture_output=True, text=True, env=ENVIRONMENT)
    assert made.returncode == 1
    assert "not all models were made" in made.stderr


def test_ids_of_another_vocabulary_are_refused(work, teacher):
    tokenizer = Teacher(os.fspath(teacher)).tokenizer
    (work / "corpus-2.tokens").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"corpus-2.tokens: expected a tokenised corpus, found a fault"):
        TokenisedLines.read(work, tokenizer)
    tokenizer.backend.add_tokens(["another"])
    with pytest.raises(InputError, match=r"corpus-0.tokens: expected token ids of the teacher's vocabulary"):
        TokenisedLines.read(work / "corpus-0.tokens", tokenizer)


def test_the_check_before_training_passes_in_the_precisions_of_a_gpu():
    """Under Triton's interpreter: tokens that float16 sends another way do not count as wrong numbers."""
    code = "import torch, gpu; gpu.check(torch.device('cpu'))"
    settings = ENVIRONMENT | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(SCRIPT.parent)}
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=settings)
    assert made.returncode == 0 and "same leaf 0.99" in made.stdout, made.stdout + made.stderr
