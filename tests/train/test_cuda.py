"""ufbert.train.cuda: on a GPU, or under Triton's interpreter on the CPU, in float32 there."""

import os

import torch

GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are imported

import copy
import dataclasses
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import some_texts, write_sentence_model
from torch.nn import functional

from ufbert import SentenceEncoder, reference
from ufbert.train import Bert
from ufbert.train.cuda import functions, kernels
from ufbert.train.cuda.functions import ROW, Attention, Error, Norm, Trees, TreeShape
from ufbert.train.cuda.model import PackedBatch, PackedBert
from ufbert.train.cuda.packing import Packing, batches
from ufbert.train.cuda.step import Goal, Stepper
from ufbert.train.distill import Recipe, command, distill, packed
from ufbert.train.distill.teacher import Teacher
from ufbert.train.tokens import TokenisedTexts

torch.set_num_threads(1)
DEVICE = torch.device("cuda" if GPU else "cpu")
SMALL = Recipe(
    num_trees=2, depth=3, grow_tokens=20_000, local_tokens=0, tokens=3_000, batch_tokens=512, max_length=20, seed=2
)  # fmt: skip


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Everything in float32; few programs, because the interpreter runs one after another."""
    monkeypatch.setattr(functions, "HALF", torch.float32)
    monkeypatch.setattr(functions, "SCORE", torch.float32)
    if not GPU:
        for name in ("TOKENS", "MIX_TOKENS", "NORM_TOKENS"):
            monkeypatch.setattr(functions, name, 256)
        monkeypatch.setattr(functions, "NORM_ROUNDS", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("teacher") / "tiny")


@pytest.fixture(scope="module")
def texts(folder):
    return TokenisedTexts.of(some_texts(400), Teacher(os.fspath(folder)).tokenizer)


@pytest.fixture
def student(folder):
    torch.manual_seed(3)
    bert = Bert.from_folder(folder)
    bert.replace_feed_forward(feed_forward="fff", num_trees=2, depth=3, hidden_act="gelu", output_bias=True)
    return bert


def drawn(*shape, grad=True):
    return torch.randn(*shape, device=DEVICE).requires_grad_(grad)


def close(mine, wanted, tolerance=2e-4):
    for one, other in zip(mine, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_attention_stays_within_segments():
    torch.manual_seed(0)
    width, head = 64, 32
    qkv, d_out = drawn(2 * ROW, 3 * width), drawn(2 * ROW, width, grad=False)
    segment = torch.randint(0, 9, (2 * ROW,), device=DEVICE).sort()[0].int()

    def plain(qkv):
        rows = []
        for part, mine in zip(qkv.split(ROW), segment.split(ROW), strict=True):
            q, k, v = part.view(ROW, 3, width // head, head).permute(1, 2, 0, 3)
            rows.append(functional.scaled_dot_product_attention(q, k, v, mine[:, None] == mine).transpose(0, 1))
        return torch.cat(rows).flatten(1)

    mine, wanted = Attention.apply(qkv, segment, head), plain(qkv)
    close([mine, *torch.autograd.grad(mine, qkv, d_out)], [wanted, *torch.autograd.grad(wanted, qkv, d_out)])


@pytest.mark.parametrize("outputs", [(0,), (1,), (0, 1)])
def test_norm_of_a_sum(outputs):
    torch.manual_seed(1)
    leaves = drawn(300, 48), drawn(300, 48), drawn(48), drawn(48)
    d_out = drawn(300, 48, grad=False)
    both = Norm.apply(*leaves, 1e-6, torch.float32)
    x, delta, weight, bias = leaves
    wanted = functional.layer_norm(x + delta, (48,), weight, bias, 1e-6)
    close(both, (wanted, wanted))
    loss = sum((both[i] * d_out).sum() * (i + 1) for i in outputs)
    factor = sum(i + 1 for i in outputs)
    close(
        torch.autograd.grad(loss, leaves), torch.autograd.grad((wanted * d_out).sum() * factor, leaves), tolerance=1e-3
    )


def test_error_and_its_gradient():
    y, wanted, scale, weight = (
        drawn(300, 48),
        drawn(300, 48, grad=False),
        torch.rand(48).to(DEVICE) + 1,
        torch.rand(300),
    )
    weight = weight.to(DEVICE)
    mine = Error.apply(y, wanted, scale, weight)
    plain = (((y - wanted) * scale).square().mean(1) * weight).sum()
    close([mine, *torch.autograd.grad(mine, y)], [plain, *torch.autograd.grad(plain, y)])


@pytest.mark.parametrize(("num_trees", "depth"), [(1, 4), (3, 2), (2, 0)])
def test_trees_and_the_decision_gradient_of_every_level(num_trees, depth):
    torch.manual_seed(depth)
    width, nodes, trees = 40, 2 ** (depth + 1), TreeShape(num_trees, depth)
    arrays = (
        drawn(200, width, grad=False),
        drawn(num_trees, nodes - 1, width, grad=False) * 0.3,
        drawn(num_trees, nodes - 1, grad=False) * 0.3,
        drawn(num_trees, nodes - 1, width, grad=False),
    )
    x, w_in, b_in, w_out = arrays
    bias, dy = drawn(width), drawn(200, width, grad=False)
    padded = [functional.pad(w, (0, 0, 0, 1)).flatten(0, 1) for w in (w_in, b_in[..., None], w_out)]
    leaves = [x.clone(), padded[0], padded[1].flatten(), padded[2]]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y, leaf = Trees.apply(leaves[0], x, *leaves[1:], bias, trees)
    x, w_in, b_in, w_out = (array.cpu().numpy() for array in arrays)
    wanted, path, scores = reference.fff_forward(x, w_in, b_in, w_out, depth, return_path=True, return_scores=True)
    np.testing.assert_array_equal(leaf.cpu().numpy(), path[..., -1])
    np.testing.assert_allclose((y - bias).detach().cpu().numpy(), wanted, rtol=1e-4, atol=1e-4)
    given = dy.cpu().numpy(), x, w_in, b_in, w_out, depth, path, scores
    plain = reference.fff_backward(*given)
    expected = [gradient.copy() for gradient in plain]
    for level in range(depth):  # one level drawn counts `depth` times
        tried = np.full((200, num_trees), level, np.int32)
        decided = reference.fff_backward(*given, tried=tried, switch_cost=trees.switch_cost)
        for total, gradient, base in zip(expected, decided, plain, strict=True):
            total += (gradient - base) / depth
    *mine, d_bias = torch.autograd.grad(y, [*leaves, bias], dy)
    mine = [g.cpu().numpy() for g in mine]
    mine[1:] = [
        g.reshape(num_trees, nodes, -1)[:, :-1].reshape(e.shape) for g, e in zip(mine[1:], expected[1:], strict=True)
    ]
    for gradient, value in zip(mine, expected, strict=True):
        np.testing.assert_allclose(gradient, value, rtol=1e-3, atol=1e-3 * np.abs(value).max())
    close([d_bias], [dy.sum(0)])


def test_batches_depend_on_seed_and_number_alone(texts):
    packing = Packing(1_024, seed=5, max_length=20, joined=0.2, cropped=0.2, noisy=0.2)
    stream = batches(texts, packing, first=3)
    third, fourth = next(stream).numpy(), next(stream).numpy()
    np.testing.assert_array_equal(third, packing.batch(texts, 3))
    np.testing.assert_array_equal(fourth, packing.batch(texts, 4))
    assert not np.array_equal(third, fourth)
    assert not np.array_equal(third, dataclasses.replace(packing, seed=6).batch(texts, 3))


def test_texts_stand_between_the_special_tokens(folder, texts):
    tokenizer = Teacher(os.fspath(folder)).tokenizer
    assert (texts.first, texts.last) == (tokenizer.token_id("cls_token"), tokenizer.token_id("sep_token"))
    assert texts.first != texts.last


def test_rows_are_full_and_hold_whole_texts(texts):
    packing = Packing(4_096, seed=0, max_length=20)
    ids, positions, segments = packing.batch(texts, 0)
    real = segments < packing.segments
    assert real.mean() > 0.95
    assert (ids[~real] == texts.padding).all() and (positions[~real] == 0).all()
    known = {tuple(texts.ids[a:b]) for a, b in zip(texts.starts[:-1], texts.starts[1:], strict=True)}
    for segment in range(segments[real].max() + 1):
        places = np.flatnonzero(segments == segment)
        assert places[0] // ROW == places[-1] // ROW and (np.diff(places) == 1).all()
        assert positions[places].tolist() == list(range(len(places)))
        first, *inner, last = ids[places].tolist()
        assert (first, last) == (texts.first, texts.last)
        assert tuple(inner) in known or len(places) == packing.max_length


def test_noise_draws_some_tokens_from_the_vocabulary(texts):
    plain, noisy = (Packing(4_096, 0, 20, noisy=share).batch(texts, 0) for share in (0.0, 1.0))
    changed = plain[0] != noisy[0]
    assert 0.1 < changed.mean() < 0.2  # 0.15, less those that are drawn as they were
    assert np.isin(noisy[0][changed], texts.words).all()


def test_packed_texts_give_what_they_give_alone(folder, texts, student):
    packing = Packing(512, seed=1, max_length=20)
    batch = torch.from_numpy(packing.batch(texts, 0)).to(DEVICE)
    for bert in (Bert.from_folder(folder), student):
        hidden = PackedBert(bert, DEVICE, torch.float32)(PackedBatch(*batch))[-1].detach().cpu()
        for segment in range(int(batch[2][batch[2] < packing.segments].max()) + 1):
            mine = (batch[2] == segment).cpu()
            alone = bert(batch[0].cpu()[mine].long()[None])[0].detach()
            torch.testing.assert_close(hidden[mine], alone, rtol=1e-4, atol=1e-4)


def test_weights_and_moments_go_there_and_back(folder, texts, student):
    teacher = PackedBert(Bert.from_folder(folder), DEVICE, torch.float32).requires_grad_(False)
    packing = Packing(256, seed=1, max_length=20)
    goal = Goal(torch.ones(2, student.config.hidden_size), "mean")

    def stepper(bert):
        made = Stepper(PackedBert(bert, DEVICE, torch.float32), teacher, goal, (3, 256), packing.segments, (0.9, 0.99))
        made.set_rates(1e-2, 5e-3, 1e-3)
        return made

    one = stepper(student)
    stream = batches(texts, packing)
    for _ in range(2):
        one.step(next(stream))
    optimizer = torch.optim.Adam(student.parameters())
    one.finish(student, optimizer)
    other = stepper(copy.deepcopy(student))
    other.read_moments(student, optimizer)
    batch = next(stream)
    for each in (one, other):
        each.step(batch)
    close(other.student.parameters(), one.student.parameters(), tolerance=1e-6)


def test_all_kernels_compile_for_a_gpu():
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    program = Path(__file__).parents[2] / "bench" / "gpu.py"
    made = subprocess.run([sys.executable, program, "--compile"], capture_output=True, text=True, env=settings)
    assert made.returncode == 0, made.stderr
    names = {line.split()[1] for line in made.stdout.splitlines() if line.endswith("sm_90")}
    assert names == {f"{name}:" for name in kernels.__all__}


@pytest.fixture
def fast(monkeypatch):
    """Let the fast step train on any device."""
    monkeypatch.setattr(command, "can_pack", lambda *_: True)
    monkeypatch.setattr(packed, "LOG_EVERY", 2)


def test_a_conversion_learns_and_goes_on_after_a_kill(fast, folder, tmp_path, monkeypatch):
    corpus = tmp_path / "texts.txt"
    corpus.write_text("\n".join(some_texts(1_100)) + "\n")
    options = {"device": DEVICE, "plain": True, "teacher_dtype": "float32"}
    whole = distill(folder, corpus, tmp_path / "whole", SMALL, **options)
    log = (tmp_path / "whole.training" / "log.json").read_text()
    assert log.count('"end_to_end"') >= 3
    state_save, calls = packed.State.save, []

    def killed(self, *arguments):
        state_save(self, *arguments)
        calls.append(self.stage)
        if calls.count("end_to_end") == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packed.State, "save", killed)
        patch.setattr(packed.State, "is_due", lambda self: self.stage == "end_to_end")
        with pytest.raises(KeyboardInterrupt):
            distill(folder, corpus, tmp_path / "again", SMALL, **options)
    assert not (tmp_path / "again").exists()
    again = distill(folder, corpus, tmp_path / "again", SMALL, **options)
    sentences = some_texts(100, seed=5)
    teacher, first, second = (
        SentenceEncoder(model).encode(sentences, normalize_embeddings=True) for model in (folder, whole, again)
    )
    assert (teacher * first).sum(1).mean() > 0.95
    assert (first * second).sum(1).min() > 0.999  # a GPU adds in no fixed order


def test_only_a_gpu_with_a_student_that_fits_takes_the_fast_step(folder, student):
    outputs = SimpleNamespace(teacher=Teacher(os.fspath(folder), plain=True), folder=None)
    config = dataclasses.replace(student.config, hidden_size=48, num_attention_heads=3)

    def can(device="cuda", changes=None, **sizes):
        state = SimpleNamespace(recipe=dataclasses.replace(SMALL, **(changes or {})), device=torch.device(device))
        return packed.can_pack(state, SimpleNamespace(config=dataclasses.replace(config, **sizes)), outputs)

    assert can()
    assert not can("cpu")
    assert not can(changes={"max_length": 129})
    assert not can(changes={"chunks": 3})
    assert not can(hidden_act="tanh")
    assert not can(first_position=2)
    assert not can(type_vocab_size=0)
    assert not can(hidden_size=12)  # heads of 4
