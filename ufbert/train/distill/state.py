"""What the stages of a conversion share: where it stands, the optimizer, the error that is trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..bert import Bert
from ..run import Run, learning_rate
from .recipe import Recipe

__all__ = ["State", "adam", "normalised_error", "set_rates"]

WARM_UP = 0.02  # share of a stage
FLOOR = 0.02  # of the largest rate, where the cosine ends
BETAS = (0.9, 0.99)  # short memory: most nodes are visited by few tokens of a batch
LOCAL_SHARE = 0.2  # of the time that is left, where there is a time budget


@dataclass(kw_only=True)
class State(Run):
    """A `Run` with the stage that it is in.

    Attributes
    ----------
    recipe : Recipe
    source : dict of str to str
        Teacher and corpus by name, and the teacher's dtype.
    device : torch.device
    stage : {"grow", "local", "end_to_end", "done"}
    began : float
        Seconds that had been spent when the stage began.
    chunk : int
        The corpus's next chunk.
    batch : int
        Batches of it that are done; while trees are grown or revived, layers.
    tokens : int
        Tokens of the stage that are done.
    trained : int
        Tokens of the last stage when it was over.
    """

    recipe: Recipe
    source: dict[str, str]
    device: torch.device
    stage: str = "grow"
    began: float = 0.0
    chunk: int = 0
    batch: int = 0
    tokens: int = 0
    trained: int = 0
    PLACE: ClassVar[tuple[str, ...]] = ("stage", "began", "chunk", "batch", "tokens", "trained")

    @classmethod
    def of(
        cls, folder: Path, recipe: Recipe, source: dict[str, str], teacher_dtype: str, device: torch.device
    ) -> State:
        """Begin a conversion. Its checkpoint goes on with another time budget, and on another device."""
        made_by = {**asdict(recipe), **source, "teacher_dtype": teacher_dtype}
        del made_by["seconds"]
        return cls(folder, made_by, recipe=recipe, source=source, device=device)

    @property
    def scale(self) -> Tensor:
        """Standard deviations of each layer's output coordinates, (L, H) float32 on the device."""
        self.tensors["scale"] = scale = self.tensors["scale"].to(self.device)
        return scale

    def seed_step(self) -> None:
        """Let what the next step draws depend on nothing but the recipe and where the stage stands."""
        torch.manual_seed(self.recipe.seed + self.tokens)

    def done(self, tokens: int) -> float:
        """Share of the stage that is over: of its `tokens`, or of its time if that is more."""
        share = self.tokens / tokens if tokens else 1.0
        if self.recipe.seconds:
            left = self.recipe.seconds - self.began
            if self.stage == "local":
                left *= LOCAL_SHARE
            share = max(share, (self.elapsed() - self.began) / left if left > 0 else 1.0)
        return min(share, 1.0)

    def finite(self, loss: float) -> float:
        """Return a loss that is finite; see `Run.checked`."""
        return self.checked(loss, f"{self.tokens:,} tokens of {self.stage}")

    def guarded(self, loss: Tensor) -> Tensor:
        """Return a loss that is finite. Only the CPU is asked at once: others are when the loss is logged."""
        if loss.device.type == "cpu":
            self.finite(loss.item())
        return loss

    def enter(self, stage: str, student: Bert) -> None:
        """Begin the next stage, and save."""
        self.stage, self.batch, self.tokens, self.began = stage, 0, 0, self.elapsed()
        self.save(student)


def adam(groups: list[tuple[list[nn.Parameter], float]]) -> torch.optim.Optimizer:
    """Adam over groups of parameters with their largest rates."""
    options = [{"params": parameters, "lr": rate, "largest": rate} for parameters, rate in groups if parameters]
    return torch.optim.Adam(options, betas=BETAS, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, done: float) -> None:
    """Warm up, then fall along a cosine; `done` is the share of the stage that is over."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(group["largest"], done, WARM_UP, FLOOR)


def normalised_error(output: Tensor, wanted: Tensor, scale: Tensor) -> Tensor:
    """Mean squared error with each coordinate in units of its standard deviation, so 1 - R² on average.

    One coordinate of a BERT layer can carry most of its variance; unscaled, it would hide all others.
    """
    return ((output - wanted) / scale).square().mean()
