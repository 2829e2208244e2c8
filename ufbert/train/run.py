"""One training run: what is kept on disk through any kill, who may work there, the learning rate, the log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..checkpoint.writing import whole_file
from ..errors import InputError, shown

__all__ = ["SAVE_EVERY", "Run", "learning_rate", "sole_use"]

SAVE_EVERY = 60.0  # seconds
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what Adam keeps of a parameter


@dataclass
class Run:
    """Where a training stands. A subclass names in `PLACE` which of its attributes say so.

    Attributes
    ----------
    folder : Path
        Holds ``state.safetensors``: tensors, and everything else as JSON in the file's metadata.
    made_by : dict of str to anything that JSON can hold
        What the result depends on: a checkpoint goes on with the same only.
    seconds : float
        Time spent until the last save, in all sessions.
    log : list of dict
        One entry for each few steps.
    tensors : dict of str to Tensor
        Kept beside the model's.
    """

    folder: Path
    made_by: dict[str, Any]
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    PLACE: ClassVar[tuple[str, ...]] = ()
    _saved: float = field(default_factory=lambda: time.monotonic())
    _moments: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return self.folder / "state.safetensors"

    def elapsed(self) -> float:
        """Seconds spent in all sessions until now."""
        return self.seconds + time.monotonic() - self._saved

    def is_due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() - self._saved >= SAVE_EVERY

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Write everything beside the old checkpoint, then put it in its place. Frozen parameters are left out."""
        now = time.monotonic()
        self.seconds, self._saved = self.seconds + now - self._saved, now
        tensors = {f"state {name}": tensor for name, tensor in self.tensors.items()}
        for name, parameter in trained(model).items():
            tensors[f"weight {name}"] = parameter.detach()
            moments = {} if optimizer is None else optimizer.state.get(parameter, {})
            tensors |= {f"{key} {name}": moments[key] for key in MOMENTS if key in moments}
        facts = {"made_by": self.made_by, "seconds": self.seconds, "log": self.log}
        facts |= {"place": {name: getattr(self, name) for name in self.PLACE}}
        with whole_file(self.file) as part:
            on_cpu = {name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()}
            save_file(on_cpu, part, {"run": json.dumps(facts)})

    def restore(self, model: nn.Module) -> None:
        """Go on from the checkpoint if there is one; `resume` does the same with an optimizer.

        Raises
        ------
        InputError
            If it is of another run, or not whole.
        """
        if not self.file.is_file():
            return
        try:
            with safe_open(self.file, framework="pt") as stored:
                facts = json.loads((stored.metadata() or {})["run"])
                self._check(facts["made_by"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.file}: expected a whole checkpoint of training, found a fault ({error}); remove the folder "
                f"{self.folder} to begin anew"
            ) from None
        with torch.no_grad():
            for name, parameter in trained(model).items():
                parameter.copy_(tensors[f"weight {name}"])
                self._moments[name] = {key: tensors[f"{key} {name}"] for key in MOMENTS if f"{key} {name}" in tensors}
        self.tensors = {name[6:]: tensor for name, tensor in tensors.items() if name.startswith("state ")}
        self.seconds, self.log = facts["seconds"], facts["log"]
        for name in self.PLACE:
            setattr(self, name, facts["place"][name])

    def resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimizer what `restore` found for the model's parameters, once; later ones begin without."""
        known = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        for name, parameter in trained(model).items():
            if parameter in known and (moments := self._moments.get(name)):
                optimizer.state[parameter] = {key: _laid_out(value, parameter) for key, value in moments.items()}
        self._moments = {}

    def checked(self, loss: float, place: str) -> float:
        """Return the loss of a step that is about to be made.

        Raises
        ------
        InputError
            If it is not finite: what is saved so far is sound, and no step is made that would spoil it.
        """
        if not math.isfinite(loss):
            raise InputError(
                f"{self.folder}: expected a finite loss, found {loss} after {place}; training has diverged: give "
                "smaller rates and another --out (the last checkpoint is from before)"
            )
        return loss

    def write_log(self, file: Path, facts: Mapping[str, Any]) -> None:
        """Write `facts`, time and log as JSON."""
        data = {**facts, "seconds": round(self.elapsed(), 1), "log": self.log}
        with whole_file(file) as part:
            part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def _check(self, found: dict[str, Any]) -> None:
        mine = json.loads(json.dumps(self.made_by))
        for key, value in mine.items():
            if found.get(key) != value:
                raise InputError(
                    f"{self.file}: expected to go on with {key} = {shown(found.get(key))}, got {shown(value)}; give "
                    f"what it was begun with, or remove the folder {self.folder} to begin anew"
                )


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are not frozen, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _laid_out(values: Tensor, parameter: nn.Parameter) -> Tensor:
    """Put a moment on its parameter's device and lay it out in memory as that, which fused optimizers count on."""
    if values.shape != parameter.shape:  # the count of steps
        return values.to(parameter.device)
    return torch.empty_like(parameter).copy_(values)


def learning_rate(largest: float, done: float, warm_up: float, floor: float = 0.0) -> float:
    """Learning rate of a step: it warms up, and falls along a cosine.

    Parameters
    ----------
    largest : float
    done : float
        Share of the training that is over.
    warm_up : float
        Share in which the rate rises.
    floor : float
        Share of the largest rate where the cosine ends.
    """
    falling = floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return largest * min(1.0, (done + 1e-4) / max(warm_up, 1e-9)) * falling


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, until the block or the process ends.

    Raises
    ------
    InputError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            for part in folder.glob(".*.part"):  # of a `whole_file` that was killed
                part.unlink()
            yield
    except Timeout:
        raise InputError(
            f"{folder}: expected to be alone at work there, found another process; wait until it ends, stop it, or "
            "choose another output"
        ) from None
