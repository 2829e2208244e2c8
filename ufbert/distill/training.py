"""What both stages share: the state that is saved, the learning rate, the error that is trained on, the log."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint.writing import whole_file
from ..errors import InputError
from ..torch import Bert
from .recipe import Recipe

__all__ = ["SAVE_EVERY", "State", "adam", "normalised_error", "set_rates"]

SAVE_EVERY = 120.0  # seconds
WARM_UP = 0.02  # share of a stage
FLOOR = 0.02  # of the largest rate, where the cosine ends
BETAS = (0.9, 0.99)  # short memory: most nodes are visited by few tokens of a batch


@dataclass
class State:
    """Where a conversion stands; `save` and `restore` keep it in a folder through any kill.

    Attributes
    ----------
    folder : Path
        Holds ``state.pt`` and ``log.jsonl``.
    recipe : Recipe
    source : dict of str to str
        Teacher and corpus by name: a checkpoint goes on only with the same.
    stage : {"grow", "local", "end_to_end", "done"}
    chunk : int
        The corpus's next chunk.
    batch : int
        Batches of it that are done; while trees are grown or revived, layers.
    tokens : int
        Tokens of the stage that are done.
    scale : (L, H) float32 tensor or None
        Standard deviations of each layer's output coordinates.
    seconds : float
        Time spent in all sessions.
    log : list of dict
        One entry for each few steps.
    """

    folder: Path
    recipe: Recipe
    source: dict[str, str]
    stage: str = "grow"
    chunk: int = 0
    batch: int = 0
    tokens: int = 0
    scale: Tensor | None = None
    seconds: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    _saved: float = field(default_factory=time.monotonic)

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return self.folder / "state.pt"

    def seed_step(self) -> None:
        """Let what the next step draws depend on nothing but the recipe and where the stage stands."""
        torch.manual_seed(self.recipe.seed + self.tokens)

    def checked(self, loss: float) -> float:
        """Return the loss of a step that is about to be made.

        Raises
        ------
        InputError
            If it is not finite: what is saved so far is sound, and no step is made that would spoil it.
        """
        if not math.isfinite(loss):
            raise InputError(
                f"{self.folder}: expected a finite loss, found {loss} after {self.tokens:,} tokens of {self.stage}; "
                "training has diverged: give smaller rates and another --out (the last checkpoint is from before)"
            )
        return loss

    def is_due(self) -> bool:
        """Tell whether it is time to save."""
        return time.monotonic() - self._saved > SAVE_EVERY

    def save(self, student: Bert, optimizer: torch.optim.Optimizer | None) -> None:
        """Write everything beside the old checkpoint, then put it in its place."""
        now = time.monotonic()
        self.seconds += now - self._saved
        self._saved = now
        trained = student.state_dict()
        if not self.recipe.embedding_rate:  # the teacher's, or those of the model that this one goes on from
            trained = {name: tensor for name, tensor in trained.items() if not name.startswith("embeddings.")}
        places = ("stage", "chunk", "batch", "tokens", "scale", "seconds", "log")
        data = {name: getattr(self, name) for name in places}
        data |= {"recipe": asdict(self.recipe), "source": self.source, "student": trained}
        data["optimizer"] = None if optimizer is None else optimizer.state_dict()
        with whole_file(self.file) as part:
            torch.save(data, part)

    def restore(self, student: Bert) -> dict[str, Any] | None:
        """Go on from the checkpoint if there is one; return the optimizer's state.

        Raises
        ------
        InputError
            If it is of another recipe, teacher or corpus.
        """
        if not self.file.exists():
            return None
        data = torch.load(self.file, weights_only=True)
        for name, mine in (("recipe", asdict(self.recipe)), ("source", self.source)):
            different = {key for key in mine if data[name].get(key) != mine[key]}
            if different:
                key = sorted(different)[0]
                raise InputError(
                    f"{self.file}: expected to go on with {key} = {data[name].get(key)!r}, got {mine[key]!r}; "
                    "give what it was begun with, or remove the folder to begin anew"
                )
        student.load_state_dict(data["student"], strict=False)
        for name in ("stage", "chunk", "batch", "tokens", "scale", "seconds", "log"):
            setattr(self, name, data[name])
        return data["optimizer"]

    def enter(self, stage: str, student: Bert) -> None:
        """Begin the next stage, and save."""
        self.stage, self.batch, self.tokens = stage, 0, 0
        self.save(student, None)

    def write_log(self) -> None:
        """Write ``log.json``: recipe, sources and curves."""
        data = {"recipe": asdict(self.recipe), "source": self.source, "seconds": round(self.seconds), "log": self.log}
        with whole_file(self.folder / "log.json") as part:
            part.write_text(json.dumps(data, indent=1) + "\n")


def adam(groups: list[tuple[list[nn.Parameter], float]], state: dict[str, Any] | None) -> torch.optim.Optimizer:
    """Adam over groups of parameters with their largest rates, going on from `state`."""
    options = [{"params": parameters, "lr": rate, "largest": rate} for parameters, rate in groups if parameters]
    optimizer = torch.optim.Adam(options, betas=BETAS, fused=True)
    if state is not None:
        optimizer.load_state_dict(state)
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, done: float) -> None:
    """Warm up, then fall along a cosine; `done` is the share of the stage that is over."""
    falling = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    for group in optimizer.param_groups:
        group["lr"] = group["largest"] * min(1.0, (done + 1e-4) / WARM_UP) * falling


def normalised_error(output: Tensor, wanted: Tensor, scale: Tensor) -> Tensor:
    """Mean squared error with each coordinate in units of its standard deviation, so 1 - R² on average.

    One coordinate of a BERT layer can carry most of its variance; unscaled, it would hide all others.
    """
    return ((output - wanted) / scale).square().mean()
