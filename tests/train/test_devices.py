"""Training away from the kernels: conversions in plain PyTorch, from one device to another, within a time."""

import dataclasses
import importlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from conftest import some_texts, write_sentence_model

from ufbert import SentenceEncoder
from ufbert.errors import InputError
from ufbert.train import find_device, run
from ufbert.train.distill import Recipe, distill
from ufbert.train.distill.corpus import Chunks
from ufbert.train.distill.outputs import Outputs
from ufbert.train.distill.state import State
from ufbert.train.distill.teacher import Teacher

torch.set_num_threads(1)  # tiny models: no pool of threads that spins in another's time
SMALL = Recipe(
    num_trees=3, depth=3, grow_tokens=60_000, local_tokens=20_000, tokens=20_000, batch_tokens=512, max_length=20
)  # fmt: skip
UNTRAINED = dataclasses.replace(SMALL, local_tokens=0, tokens=0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("teacher") / "tiny")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("\n".join(some_texts(1_500)) + "\n")
    return file


def distance(first, second):
    """Mean squared difference of embeddings: all of the tiny model's have a cosine near 1."""
    a, b = (SentenceEncoder(folder).encode(some_texts(200, seed=5)) for folder in (first, second))
    return float(np.square(a - b).mean())


def test_plain_pytorch_converts_as_the_kernels_do(teacher, corpus, tmp_path):
    found = {}
    for name, recipe in (("grown", UNTRAINED), ("trained", SMALL)):
        kernels, plain = (
            distance(teacher, distill(teacher, corpus, tmp_path / f"{name}-{plain}", recipe, plain=plain))
            for plain in (False, True)
        )
        assert 0.6 * kernels < plain < 1.7 * kernels  # many tokens are alike, and fall to either side of a median
        found[name] = plain
    assert found["trained"] < found["grown"]
    log = json.loads((tmp_path / "trained-True.training" / "log.json").read_text())
    assert {entry["stage"] for entry in log["log"]} == {"local", "end_to_end"}


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_a_checkpoint_goes_on_elsewhere(teacher, corpus, tmp_path, monkeypatch, before, after):
    """Where it was saved and where it goes on differ in who walks the trees; all else is the same run."""
    save = State.save

    def killed(self, *arguments):
        save(self, *arguments)
        if self.stage == "end_to_end" and self.tokens > 8_000:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run, "SAVE_EVERY", 0.0)
        patch.setattr(State, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, corpus, tmp_path / "out", SMALL, plain=before)
    resumed = distill(teacher, corpus, tmp_path / "out", SMALL, plain=after)
    whole = distill(teacher, corpus, tmp_path / "whole", SMALL, plain=before)
    assert distance(resumed, whole) < 0.1 * distance(teacher, whole)
    logs = [json.loads((tmp_path / f"{name}.training" / "log.json").read_text()) for name in ("out", "whole")]
    assert logs[0]["tokens"] == logs[1]["tokens"] >= 20_000


def test_training_ends_with_its_time_and_so_do_the_learning_rates(teacher, corpus, tmp_path, monkeypatch):
    shares, done = [], State.done

    def kept(self, tokens):
        shares.append((self.stage, done(self, tokens)))
        return shares[-1][1]

    monkeypatch.setattr(State, "elapsed", lambda self: self.began + self.tokens / 1_000)  # 1,000 tokens a second
    monkeypatch.setattr(State, "done", kept)
    recipe = dataclasses.replace(SMALL, grow_tokens=0, local_tokens=10**9, tokens=10**9, seconds=20.0)
    distill(teacher, corpus, tmp_path / "out", recipe)
    log = json.loads((tmp_path / "out.training" / "log.json").read_text())
    assert 14_000 < log["tokens"] < 17_000  # a fifth of the 20 seconds, and a step, went to the layers
    for stage in ("local", "end_to_end"):
        found = [share for name, share in shares if name == stage]
        assert found[0] == 0 and found[-1] == 1 and all(a <= b for a, b in itertools.pairwise(found))
        assert len(found) > 8


def test_the_time_budget_may_change_and_nothing_else(teacher, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(State, "elapsed", lambda self: self.seconds + self.tokens / 1_000)
    quick = dataclasses.replace(UNTRAINED, tokens=2_000, seconds=50.0)
    distill(teacher, corpus, tmp_path / "out", quick).rename(tmp_path / "moved")
    distill(teacher, corpus, tmp_path / "out", dataclasses.replace(quick, seconds=60.0)).rename(tmp_path / "again")
    with pytest.raises(InputError, match="expected to go on with tokens = 2000, got 3000"):
        distill(teacher, corpus, tmp_path / "out", dataclasses.replace(quick, tokens=3_000))
    with pytest.raises(InputError, match="expected to go on with teacher_dtype = 'auto', got 'bfloat16'"):
        distill(teacher, corpus, tmp_path / "out", quick, teacher_dtype="bfloat16")


@pytest.mark.parametrize(("dtype", "plain"), [("float16", False), ("int8", True), ("half", False)])
def test_the_teacher_s_dtypes_depend_on_who_runs_it(teacher, dtype, plain):
    with pytest.raises(InputError, match="teacher_dtype: expected one of"):
        Teacher(str(teacher), dtype, plain=plain)


def test_a_teacher_of_low_precision_is_near(teacher):
    exact, low = Teacher(str(teacher), plain=True), Teacher(str(teacher), "bfloat16", plain=True)
    batch = Chunks(some_texts(1_000), exact.texts, SMALL).chunk(0)[0]
    for mine, expected in zip(low(batch).outputs, exact(batch).outputs, strict=True):
        assert mine.dtype == torch.float32
        assert 0 < (mine - expected).abs().mean() < 0.05 * expected.std()


def test_chunks_made_ahead_are_those_that_are_asked_for(teacher):
    master = Teacher(str(teacher))
    facts = dict.fromkeys(("teacher", "teacher_dtype", "corpus", "texts"), "")
    recipe = dataclasses.replace(SMALL, chunks=3, joined=0.1)
    texts = Chunks(some_texts(1_000), master.texts, recipe)
    outputs = Outputs(master, texts, recipe, None, facts)
    outputs._worker = ThreadPoolExecutor(1)  # as on devices other than the CPU
    for index, start in ((1, 2), (1, 0), (2, 0), (3, 0), (4, 0), (0, 1)):
        expected = texts.chunk(index % 3)[start:]
        for mine, one in zip(outputs.chunk(index, start), expected, strict=True):
            assert torch.equal(mine.input_ids, one.input_ids)


def test_devices_are_found_or_refused_by_name():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("hpu", "gpu", "cuda:99", 3.5):
        with pytest.raises(InputError, match="device: expected one that PyTorch can use here, got"):
            find_device(name)


@pytest.mark.parametrize(("old", "new"), [("ufbert.torch", "ufbert.train"), ("ufbert.distill", "ufbert.train.distill")])
def test_former_names_warn_and_give_the_same(old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        module = importlib.reload(importlib.import_module(old))
    assert all(getattr(module, name) is getattr(importlib.import_module(new), name) for name in module.__all__)
