"""One training run: what a checkpoint keeps through faults, who may write it, the learning rate."""

import errno
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from safetensors import safe_open
from torch import nn

from ufbert import InputError
from ufbert.train import run as run_module
from ufbert.train.run import Run, learning_rate, sole_use


@dataclass(kw_only=True)
class Counted(Run):
    """A run that counts its steps."""

    step: int = 0
    PLACE: ClassVar[tuple[str, ...]] = ("step",)


def model_of(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[1].weight = nn.Parameter(model[1].weight.detach().t().contiguous().t())  # transposed in memory
    model[0].bias.requires_grad_(False)
    return model


def train(model, optimizer, steps):
    for step in steps:
        torch.manual_seed(step)
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def adam(model):
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1, fused=True)


def test_a_checkpoint_goes_on_with_the_same_bits(tmp_path):
    whole = model_of(0)
    train(whole, adam(whole), range(6))
    first, made_by = model_of(0), {"seed": 0, "recipe": {"rate": 0.1}}
    optimizer, run = adam(first), Counted(tmp_path, made_by, log=[{"loss": 0.1}])
    train(first, optimizer, range(3))
    run.step, run.tensors = 3, {"scale": torch.arange(3.0)}
    run.save(first, optimizer)
    second, later = model_of(0), Counted(tmp_path, made_by)
    later.restore(second)
    optimizer = adam(second)
    later.resume(second, optimizer)
    assert (later.step, later.log, later.seconds) == (3, [{"loss": 0.1}], run.seconds)
    assert torch.equal(later.tensors["scale"], torch.arange(3.0))
    assert optimizer.state[second[1].weight]["exp_avg"].stride() == second[1].weight.stride() == (1, 2)
    train(second, optimizer, range(later.step, 6))
    assert all(
        torch.equal(mine, expected) for mine, expected in zip(second.parameters(), whole.parameters(), strict=True)
    )


def test_frozen_parameters_are_not_kept_and_another_optimizer_begins_anew(tmp_path):
    model, run = model_of(0), Run(tmp_path, {})
    optimizer = adam(model)
    train(model, optimizer, range(2))
    run.save(model, optimizer)
    with safe_open(run.file, framework="pt") as stored:
        assert not any("0.bias" in name for name in stored.keys())  # noqa: SIM118
    other, again = model_of(1), Run(tmp_path, {})
    frozen = other[0].bias.clone()
    again.restore(other)
    assert torch.equal(other[0].bias, frozen) and torch.equal(other[0].weight, model[0].weight)
    again.resume(other, adam(other))
    later = adam(other)
    again.resume(other, later)
    assert not later.state


def test_time_of_all_sessions_adds_up(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(run_module.time, "monotonic", lambda: now[0])
    model, run = model_of(0), Run(tmp_path, {})
    now[0] += 59
    assert (run.elapsed(), run.is_due()) == (59, False)
    now[0] += 1
    assert run.is_due()
    run.save(model)
    assert not run.is_due()
    now[0] += 1000  # the machine is away
    later = Run(tmp_path, {})
    later.restore(model)
    now[0] += 5
    assert later.elapsed() == 65


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path, monkeypatch, fault):
    model, run = model_of(0), Counted(tmp_path, {}, step=1)
    run.save(model)
    before = run.file.read_bytes()

    def half(tensors, file, metadata):
        file.write_bytes(before[: len(before) // 2])
        raise fault

    run.step = 2
    monkeypatch.setattr(run_module, "save_file", half)
    with pytest.raises(type(fault)):
        run.save(model)
    assert run.file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_checkpoints_of_other_runs_are_refused_by_what_differs(tmp_path):
    model = model_of(0)
    Run(tmp_path, {"task": "a", "seed": 0}).save(model)
    with pytest.raises(InputError, match=r"state.safetensors: expected to go on with seed = 0, got 1; .* remove"):
        Run(tmp_path, {"task": "a", "seed": 1}).restore(model)


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_broken_checkpoints_are_refused(tmp_path, damage):
    model, run = model_of(0), Run(tmp_path, {})
    run.save(model)
    if damage == "foreign":
        run_module.save_file({"x": torch.zeros(2)}, run.file)
    else:
        run.file.write_bytes(run.file.read_bytes()[: 100 if damage == "cut" else 0])
    with pytest.raises(InputError, match="expected a whole checkpoint of training, found a fault"):
        Run(tmp_path, {}).restore(model)


def test_a_loss_that_is_not_finite_is_refused(tmp_path):
    run = Run(tmp_path, {})
    assert run.checked(0.5, "3 steps") == 0.5
    for loss in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"expected a finite loss, found (nan|inf) after 3 steps"):
            run.checked(loss, "3 steps")


def test_the_log_is_json_with_what_goes_before(tmp_path):
    run = Run(tmp_path, {}, log=[{"step": 1, "loss": 0.5}])
    run.write_log(tmp_path / "log.json", {"made_by": {"seed": 0}})
    found = json.loads((tmp_path / "log.json").read_text())
    assert found["made_by"] == {"seed": 0} and found["log"] == run.log and found["seconds"] >= 0


def test_the_learning_rate_rises_and_falls_along_a_cosine():
    rates = [learning_rate(2.0, step / 1000, 0.1, 0.02) for step in range(1001)]
    assert rates[0] == pytest.approx(2e-3) and rates[50] == pytest.approx(0.5 * 2.0, rel=0.01)
    assert 90 <= rates.index(max(rates)) <= 110 and max(rates) == pytest.approx(2.0, rel=0.03)
    assert rates[500] == pytest.approx(2.0 * (0.02 + 0.98 / 2))
    assert rates[-1] == learning_rate(2.0, 1.5, 0.1, 0.02) == pytest.approx(0.04)
    assert learning_rate(2.0, 0.0, 0.0) == 2.0 and learning_rate(2.0, 1.0, 0.0) == 0.0


def test_one_process_at_a_time_works_in_a_folder(tmp_path):
    code = f"""
import sys
from pathlib import Path
from ufbert.train.run import sole_use
with sole_use(Path({str(tmp_path / "a" / "training")!r})):
    print("mine", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    folder = tmp_path / "a" / "training"
    try:
        assert other.stdout.readline() == b"mine\n"
        wanted = "expected to be alone at work there, found another process"
        with pytest.raises(InputError, match=wanted), sole_use(folder):
            pass
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    (folder / ".state.safetensors.12.part").write_bytes(b"half a sta")
    with sole_use(folder):  # a kill gives it free
        assert {path.name for path in folder.iterdir()} == {".lock"}
