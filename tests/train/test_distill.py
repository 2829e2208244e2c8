"""ufbert distill: learns, is reproducible, survives kills, writes a folder that ufbert loads."""

import dataclasses
import errno
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import some_texts, write_bert, write_fff, write_sentence_model
from safetensors import safe_open

import ufbert
from ufbert import SentenceEncoder
from ufbert.checkpoint.folder import ModelFolder
from ufbert.checkpoint.tensors import Tensors
from ufbert.errors import CheckpointError, InputError
from ufbert.train import Bert, run
from ufbert.train.distill import Recipe, distill
from ufbert.train.distill.corpus import Chunks
from ufbert.train.distill.local import is_feed_forward
from ufbert.train.distill.outputs import Outputs
from ufbert.train.distill.teacher import Teacher

torch.set_num_threads(1)  # tiny models: no pool of threads that spins in another's time
SMALL = Recipe(
    num_trees=3, depth=3, grow_tokens=60_000, local_tokens=40_000, tokens=40_000, batch_tokens=512, max_length=20
)  # fmt: skip
CHUNKED = Recipe(batch_tokens=256, max_length=20, joined=0.1, seed=3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("teacher") / "tiny")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("\n".join(some_texts(1_500)) + "\n")
    return file


@pytest.fixture(scope="module")
def student(teacher, corpus, tmp_path_factory):
    return distill(teacher, corpus, tmp_path_factory.mktemp("out") / "fff", SMALL)


def weights(folder):
    tensors = Tensors(ModelFolder(folder).weight_files())
    return {name: tensors.tensor(name).float32() for name in tensors.names()}


def closeness(first, second, texts):
    a, b = (SentenceEncoder(folder).encode(texts, normalize_embeddings=True) for folder in (first, second))
    return float((a * b).sum(1).mean())


def test_the_student_is_a_plain_folder_nearer_to_the_teacher_than_without_training(teacher, corpus, student, tmp_path):
    texts = some_texts(200, seed=5)
    untrained = distill(
        teacher, corpus, tmp_path / "raw", dataclasses.replace(SMALL, grow_tokens=0, local_tokens=0, tokens=0)
    )
    assert closeness(teacher, student, texts) > closeness(teacher, untrained, texts)
    assert closeness(teacher, student, texts) > 0.97
    assert {path.name for path in student.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "modules.json", "1_Pooling", "vocab.txt"
    }  # fmt: skip
    assert "12 of 45 neurons visited" in (student / "README.md").read_text()
    config = json.loads((student / "config.json").read_text())
    assert (config["model_type"], config["num_trees"], config["depth"]) == ("ufbert", 3, 3)


def test_a_student_of_a_teacher_without_modules_json_can_be_loaded(corpus, tmp_path):
    source = write_sentence_model(tmp_path / "source")
    (source / "modules.json").unlink()
    quick = dataclasses.replace(SMALL, grow_tokens=0, local_tokens=0, tokens=0)
    assert SentenceEncoder(distill(source, corpus, tmp_path / "fff", quick)).encode("the cat").shape == (12,)


@pytest.mark.parametrize("mode", ["max", "mean_sqrt_len"])
def test_a_teacher_whose_pooling_cannot_be_distilled_is_refused(tmp_path, mode):
    key = {"max": "pooling_mode_max_tokens", "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens"}[mode]
    source = write_sentence_model(tmp_path / "source", key)
    with pytest.raises(CheckpointError, match=f"expected a teacher with cls or mean pooling, found {mode};"):
        Teacher(source)


def test_log_and_curves_stand_beside(student):
    beside = student.parent / "fff.training"
    log = json.loads((beside / "log.json").read_text())
    stages = [entry["stage"] for entry in log["log"]]
    assert stages == sorted(stages, reverse=True) and set(stages) == {"local", "end_to_end"}
    assert log["recipe"]["num_trees"] == 3
    assert (beside / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_seed_reproduces_every_bit(teacher, corpus, student, tmp_path):
    again = distill(teacher, corpus, tmp_path / "again", SMALL)
    other = distill(teacher, corpus, tmp_path / "other", dataclasses.replace(SMALL, seed=1))
    first, second, third = weights(student), weights(again), weights(other)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert any(not np.array_equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize(("stage", "saves"), [("grow", 1), ("local", 2), ("end_to_end", 2)])
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(teacher, corpus, student, tmp_path, stage, saves):
    out = tmp_path / "killed"
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from ufbert.train import run; from ufbert.train.distill import Recipe, distill; run.SAVE_EVERY = 0.0\n"
        "from ufbert.train.distill.state import State; calls = [0]; save = State.save\n"
        "def counted(self, *arguments):\n"
        f"    save(self, *arguments); calls[0] += self.stage == {stage!r}\n"
        f"    if calls[0] == {saves}: import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
        "State.save = counted\n"
        f"distill({str(teacher)!r}, {str(corpus)!r}, {str(out)!r}, Recipe(**{dataclasses.asdict(SMALL)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not out.exists()
    distill(teacher, corpus, out, SMALL)
    first, second = weights(student), weights(out)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_going_on_with_another_recipe_is_refused(teacher, corpus, tmp_path):
    quick = dataclasses.replace(SMALL, local_tokens=0, tokens=0)
    distill(teacher, corpus, tmp_path / "fff", quick).rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="depth"):
        distill(teacher, corpus, tmp_path / "fff", dataclasses.replace(quick, depth=2))


@pytest.mark.parametrize("rates", [{"local_rate": 1e30}, {"rate": 1e30, "other_rate": 1e30}])
def test_training_that_diverges_stops_and_leaves_a_sound_checkpoint(teacher, corpus, tmp_path, monkeypatch, rates):
    monkeypatch.setattr(run, "SAVE_EVERY", 0.0)
    with pytest.raises(InputError, match=r"finite loss, found (nan|inf).*smaller rates"):
        distill(teacher, corpus, tmp_path / "fff", dataclasses.replace(SMALL, grow_tokens=0, **rates))
    assert not (tmp_path / "fff").exists()
    with safe_open(tmp_path / "fff.training" / "state.safetensors", framework="np") as saved:
        assert all(np.isfinite(saved.get_tensor(name)).all() for name in saved.keys())  # noqa: SIM118
        assert all(np.isfinite(entry["loss"]) for entry in json.loads(saved.metadata()["run"])["log"])


@pytest.mark.parametrize(("control", "width"), [("none", 0), ("affine", 12), ("dense", 12)])
def test_controls_are_plain_bert_folders(teacher, corpus, tmp_path, control, width):
    quick = dataclasses.replace(SMALL, control=control, local_tokens=20_000, tokens=10_000)
    folder = distill(teacher, corpus, tmp_path / control, quick)
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["intermediate_size"]) == ("bert", width)
    assert config["hidden_act"] == ("linear" if control == "affine" else "gelu")
    assert np.isfinite(SentenceEncoder(folder).encode(some_texts(20))).all()


@pytest.mark.parametrize("stage", ["local_tokens", "tokens"])
def test_decisions_learn_in_both_stages(teacher, corpus, tmp_path, stage):
    changes = {"local_tokens": 2_000, "tokens": 2_000} | {"tokens" if stage == "local_tokens" else "local_tokens": 0}
    one = dataclasses.replace(SMALL, **changes)
    with_, without = (
        weights(distill(teacher, corpus, tmp_path / str(given), dataclasses.replace(one, decision_gradient=given)))
        for given in (True, False)
    )
    name = "encoder.layer.1.ffn.linear_in.weight"
    assert not np.array_equal(with_[name], without[name])
    costly = distill(teacher, corpus, tmp_path / "costly", dataclasses.replace(one, switch_cost=5.0))
    assert not np.array_equal(with_[name], weights(costly)[name])


@pytest.mark.parametrize("control", [None, "none"])
def test_embedding_tables_learn_unless_told_otherwise(teacher, corpus, tmp_path, control):
    quick = dataclasses.replace(SMALL, control=control, grow_tokens=0, local_tokens=0, tokens=4_000)
    tables = {name: array.astype(np.float16) for name, array in weights(teacher).items() if "embeddings." in name}
    assert len(tables) == 5
    learnt = weights(distill(teacher, corpus, tmp_path / "learnt", quick))
    kept = weights(distill(teacher, corpus, tmp_path / "kept", dataclasses.replace(quick, embedding_rate=0.0)))
    for name, table in tables.items():
        name = name.removeprefix("bert.")
        np.testing.assert_array_equal(kept[name], table.astype(np.float32))
        if "token_type" not in name:  # all texts are of one type: whose row learns, another's does not
            assert not np.array_equal(learnt[name], kept[name])


def test_kept_tables_survive_a_kill(teacher, corpus, student, tmp_path):
    """Checkpoints leave them out: they come from where the conversion began."""
    later = dataclasses.replace(SMALL, grow_tokens=0, tokens=4_000, embedding_rate=0.0)
    whole = weights(distill(teacher, corpus, tmp_path / "whole", later, start=student))
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from ufbert.train import run; from ufbert.train.distill import Recipe, distill; run.SAVE_EVERY = 0.0\n"
        "from ufbert.train.distill.state import State; save = State.save\n"
        "def once(self, *arguments):\n"
        "    save(self, *arguments)\n"
        "    if self.stage == 'end_to_end' and self.tokens: import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
        "State.save = once\n"
        f"distill({str(teacher)!r}, {str(corpus)!r}, {str(tmp_path / 'killed')!r}, "
        f"Recipe(**{dataclasses.asdict(later)!r}), start={str(student)!r})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    again = weights(distill(teacher, corpus, tmp_path / "killed", later, start=student))
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(again[name], weights(student)[name])


def test_a_converted_model_is_trained_on(teacher, corpus, tmp_path):
    student = distill(
        teacher, corpus, tmp_path / "fff", dataclasses.replace(SMALL, grow_tokens=0, local_tokens=0, tokens=0)
    )
    more = dataclasses.replace(SMALL, tokens=20_000, seed=1)
    later = distill(teacher, corpus, tmp_path / "later", more, start=student)
    texts = some_texts(200, seed=5)
    assert closeness(teacher, later, texts) > closeness(teacher, student, texts)
    log = json.loads((tmp_path / "later.training" / "log.json").read_text())
    assert {entry["stage"] for entry in log["log"]} == {"end_to_end"}
    assert 20_000 <= log["tokens"] < 21_000
    told = f"after all that fff was trained on, another {log['tokens']:,} end to end"
    assert told in (later / "README.md").read_text()
    nothing = dataclasses.replace(SMALL, grow_tokens=0, tokens=0)
    unchanged = distill(teacher, corpus, tmp_path / "same", nothing, start=student)
    first, second = weights(student), weights(unchanged)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_kept_outputs_serve_other_conversions_and_later_passes(teacher, corpus, tmp_path):
    again = dataclasses.replace(SMALL, grow_tokens=0, local_tokens=0, chunks=1, tokens=60_000)  # more than one pass
    first = distill(teacher, corpus, tmp_path / "first", again, keep_outputs=tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"outputs.json", "chunk-0.npy"}
    kept = np.load(tmp_path / "kept" / "chunk-0.npy")
    assert kept.dtype == np.float16 and kept.shape[0] == 2
    second = distill(teacher, corpus, tmp_path / "second", again, keep_outputs=tmp_path / "kept")
    one, two = weights(first), weights(second)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    texts = some_texts(200, seed=5)
    plain = distill(teacher, corpus, tmp_path / "plain", again)  # float16's rounding is all that differs
    assert closeness(plain, first, texts) > 0.999


def test_kept_outputs_of_something_else_are_refused(teacher, corpus, tmp_path):
    quick = dataclasses.replace(SMALL, grow_tokens=0, local_tokens=0, tokens=2_000)
    distill(teacher, corpus, tmp_path / "first", quick, keep_outputs=tmp_path / "kept")
    other = dataclasses.replace(quick, seed=1)
    with pytest.raises(InputError, match=r"outputs.json: expected outputs kept with seed = '1', found '0'"):
        distill(teacher, corpus, tmp_path / "second", other, keep_outputs=tmp_path / "kept")
    assert not (tmp_path / "second").exists() and not (tmp_path / "second.training").exists()


def test_a_full_disk_keeps_no_part_of_a_chunk_and_training_goes_on_elsewhere(teacher, corpus, tmp_path, monkeypatch):
    quick = dataclasses.replace(SMALL, grow_tokens=0, local_tokens=0, tokens=2_000)

    def full(stream, array):
        stream.write(b"x" * 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(InputError, match=r"chunk-\d.npy: expected room for [0-9,]+ bytes .*No space left"):
            distill(teacher, corpus, tmp_path / "out", quick, keep_outputs=tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"outputs.json"}
    assert distill(teacher, corpus, tmp_path / "out", quick).is_dir()


def test_the_teacher_s_outputs_belong_to_their_batches(teacher, tmp_path):
    master, lines = Teacher(str(teacher)), some_texts(1_000)
    facts = dict.fromkeys(("teacher", "teacher_dtype", "corpus", "texts"), "")
    for folder in (None, tmp_path / "kept"):
        texts = Chunks(lines, master.texts, CHUNKED)
        found = list(Outputs(master, texts, dataclasses.replace(SMALL, chunks=2), folder, facts).chunk(3, 4))
        assert len(found) == len(texts.chunk(1)) - 4
        for batch, expected in zip(found, texts.chunk(1)[4:], strict=True):
            assert torch.equal(batch.input_ids, expected.input_ids)
            if folder is None:
                assert batch.outputs is None  # they are computed when the step is made
                continue
            for output, exact in zip(batch.outputs, master(expected).outputs, strict=True):
                np.testing.assert_allclose(output, exact, atol=5e-3)


def test_going_on_from_a_model_of_another_shape_is_refused(teacher, corpus, student, tmp_path):
    with pytest.raises(InputError, match=r"expected a model with depth = 2, .* found 3"):
        distill(teacher, corpus, tmp_path / "out", dataclasses.replace(SMALL, depth=2), start=student)
    with pytest.raises(InputError, match=r"feed_forward = 'fff', .* found 'dense'"):
        distill(teacher, corpus, tmp_path / "out2", SMALL, start=teacher)
    wide = write_sentence_model(tmp_path / "wide", num_hidden_layers=1)
    with pytest.raises((InputError, CheckpointError)):
        distill(wide, corpus, tmp_path / "out3", SMALL, start=student)


def test_the_teacher_gives_the_same_on_kernels_and_in_plain_pytorch(teacher):
    ours, plain = Teacher(str(teacher)), Teacher(str(teacher), plain=True)
    batches = Chunks(some_texts(1_000), ours.texts, CHUNKED).chunk(0)
    batch = next(batch for batch in batches if batch.attention_mask is not None)  # some text is padded
    for name in ("inputs", "outputs"):
        pairs = list(zip(getattr(ours(batch), name), getattr(plain(batch), name), strict=True))
        assert len(pairs) == 2
        for mine, expected in pairs:
            torch.testing.assert_close(mine, expected, atol=2e-5, rtol=1e-4)
    x = ours(batch).inputs[1]
    torch.testing.assert_close(ours.feed_forward(1, x), plain.feed_forward(1, x), atol=2e-5, rtol=1e-4)
    assert plain(batch, inputs=False).inputs == ours(batch, inputs=False).inputs == []


def test_chunks_depend_on_seed_and_number_alone(teacher):
    master = Teacher(str(teacher))
    lines = some_texts(1_000)
    first, second = (Chunks(lines, master.texts, CHUNKED) for _ in range(2))
    second.chunk(0)
    for ours, theirs in zip(first.chunk(2), second.chunk(2), strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids)
        assert ours.input_ids.numel() <= 256 or len(ours.input_ids) == 1
        assert int(ours.mask.sum()) == ours.num_tokens


def test_which_parameters_are_feed_forward(teacher):
    model = Bert.from_folder(teacher)
    names = [name for name, _ in model.named_parameters() if is_feed_forward(name)]
    assert len(names) == 2 * 4
    assert not any("attention" in name or "LayerNorm" in name for name in names)


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 25},
        {"num_trees": 0},
        {"chunks": -1},
        {"control": "big"},
        {"rate": float("nan")},
        {"seed": 1.5},
        {"embedding_rate": -1.0},
    ],
)
def test_faulty_recipes_are_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        Recipe(**changes)


def test_faulty_arguments_are_refused_before_any_work(teacher, corpus, tmp_path):
    with pytest.raises(CheckpointError, match="dense"):
        distill(write_fff(tmp_path / "fff"), corpus, tmp_path / "out")
    with pytest.raises(InputError, match="something there"):
        distill(teacher, corpus, teacher)
    few = tmp_path / "few.txt"
    few.write_text("a cat\n")
    with pytest.raises(InputError, match="at least 1,000 texts"):
        distill(teacher, few, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plain_bert_folder_has_a_student_too(corpus, tmp_path):
    plain = write_bert(tmp_path / "plain")
    quick = dataclasses.replace(SMALL, local_tokens=5_000, tokens=5_000)
    folder = distill(plain, corpus, tmp_path / "out", quick, teacher_dtype="float32")
    assert ufbert.load(folder)(np.array([[2, 5, 6, 3]])).last_hidden_state.shape == (1, 4, 12)
