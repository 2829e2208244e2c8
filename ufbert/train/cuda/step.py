"""One training step on a GPU, captured once as a graph: teacher, student, loss, gradients and Adam."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ..bert import Bert
from .functions import Error
from .model import PackedBatch, PackedBert

__all__ = ["Goal", "Stepper"]

WARM_UPS = 3  # steps before the capture: compile kernels, and let libraries allocate
MOMENTS = ("exp_avg", "exp_avg_sq")  # what Adam keeps of a parameter, beside the count of steps


@dataclass(frozen=True)
class Goal:
    """What the student is to give.

    Attributes
    ----------
    scale : (L, H) float32 tensor
        Standard deviations of the teacher's coordinates, layer by layer.
    pooling : {"mean", "cls"}
    cosine_weight : float
        Of 1 - cosine between text embeddings, beside the last layer's error.
    layer_weight : float
        Of the mean error of the other layers.
    """

    scale: Tensor
    pooling: str
    cosine_weight: float = 1.0
    layer_weight: float = 2.0


class Stepper:
    """Trains a student on batches of packed texts.

    Parameters
    ----------
    student, teacher : PackedBert
    goal : Goal
    shape : tuple of int
        (3, T), of a batch: ids, positions, segments.
    segments : int
        Number of padding's segment.
    betas : tuple of float
        Adam's.
    """

    def __init__(
        self, student: PackedBert, teacher: PackedBert, goal: Goal, shape: tuple[int, int], segments: int,
        betas: tuple[float, float],
    ) -> None:  # fmt: skip
        self.student, self.teacher, self.goal, self.segments = student, teacher, goal, segments
        device = student.words.device
        self.batch = torch.zeros(shape, dtype=torch.int32, device=device)
        self.figures = torch.zeros(3, device=device)  # sums of loss, last layer's error, cosine
        self.inverse_scale = 1 / goal.scale.to(device)
        cuda = device.type == "cuda"
        groups = [
            {"params": learn, "lr": torch.zeros((), device=device)}
            for group in student.parameter_groups()
            if (learn := [parameter for parameter in group if parameter.requires_grad])
        ]
        self.optimizer = torch.optim.Adam(groups, betas=betas, fused=True, capturable=cuda)
        self.graph: torch.cuda.CUDAGraph | None = None

    def set_rates(self, *rates: float) -> None:
        """Set learning rates of feed-forward layers, of all else in the layers, of the embeddings."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=False):
            group["lr"].fill_(rate)

    def step(self, batch: Tensor) -> None:
        """Train on a batch; nothing waits for the device."""
        self.batch.copy_(batch, non_blocking=True)
        if self.graph is None:
            self._run()
        else:
            self.graph.replay()

    def take_figures(self) -> list[float]:
        """Return sums of loss, error and cosine since the last call, and begin anew."""
        sums = self.figures.tolist()
        self.figures.zero_()
        return sums

    def finish(self, bert: Bert, optimizer: torch.optim.Optimizer) -> None:
        """Bring `bert` and an optimizer of its parameters up to date."""
        self.student.write_to(bert)
        self.write_moments(bert, optimizer)

    def capture(self) -> None:
        """Record the step as a CUDA graph; weights and moments stay as they are."""
        state = [value for moments in self.optimizer.state.values() for value in moments.values()]
        kept = [(value, value.detach().clone()) for value in [*self.student.parameters(), *state]]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._run()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._run()
        with torch.no_grad():
            for value in (value for moments in self.optimizer.state.values() for value in moments.values()):
                value.zero_()  # those that the warm-up made
            for value, before in kept:
                value.copy_(before)
        self.figures.zero_()

    @torch.no_grad()
    def write_moments(self, bert: Bert, optimizer: torch.optim.Optimizer) -> None:
        """Copy Adam's moments to an optimizer of the parameters of `bert`."""
        own = self.optimizer.state
        steps = next((moments["step"] for moments in own.values()), torch.zeros(()))
        for key in MOMENTS:
            packed, plain = deepcopy(self.student), deepcopy(bert)
            for copy, parameter in zip(packed.parameters(), self.student.parameters(), strict=True):
                copy.copy_(own[parameter][key] if parameter in own else torch.zeros_like(parameter))
            for copy in plain.parameters():
                copy.zero_()
            packed.write_to(plain)
            for copy, parameter in zip(plain.parameters(), bert.parameters(), strict=True):
                if parameter.requires_grad:
                    state = optimizer.state[parameter]
                    state["step"], state[key] = steps.detach().clone().to(parameter.device), copy.detach()

    @torch.no_grad()
    def read_moments(self, bert: Bert, optimizer: torch.optim.Optimizer) -> None:
        """Take Adam's moments from an optimizer of the parameters of `bert`, if it has any."""
        if not optimizer.state:
            return
        steps = next(iter(optimizer.state.values()))["step"]
        for key in MOMENTS:
            plain = deepcopy(bert)
            for copy, parameter in zip(plain.parameters(), bert.parameters(), strict=True):
                known = optimizer.state.get(parameter)
                copy.copy_(known[key] if known else torch.zeros_like(parameter))
            packed = PackedBert(plain, self.student.words.device, self.student.precision)
            for parameter, value in zip(self.student.parameters(), packed.parameters(), strict=True):
                if not parameter.requires_grad:
                    continue
                state = self.optimizer.state[parameter]
                state["step"], state[key] = steps.detach().float().clone().to(value.device), value.detach()

    def _run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss, error, cosine = self._loss(PackedBatch(*self.batch))
        loss.backward()
        self.optimizer.step()
        self.figures += torch.stack([loss.detach(), error.detach(), cosine.detach()])

    def _loss(self, batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, the last layer's error, the mean cosine."""
        with torch.no_grad():
            wanted = self.teacher(batch)
        got = self.student(batch)
        real = (batch.segment < self.segments).float()
        tokens = real.sum()
        inner = self.goal.layer_weight / max(1, len(got) - 1)
        weights = [real * (inner / tokens)] * (len(got) - 1) + [real / tokens]
        errors = [Error.apply(*pair) for pair in zip(got, wanted, self.inverse_scale, weights, strict=True)]
        cosine = self._cosine(got[-1], wanted[-1], batch)
        return sum(errors) + self.goal.cosine_weight * (1 - cosine), errors[-1], cosine

    def _cosine(self, got: Tensor, wanted: Tensor, batch: PackedBatch) -> Tensor:
        """Mean cosine between embeddings."""
        if self.goal.pooling == "cls":
            first = (batch.position_ids == 0)[:, None]
            got, wanted = got * first, wanted * first
        width, places = got.shape[1], batch.segment.long()
        one, other = (
            hidden.new_zeros(self.segments + 1, width).index_add(0, places, hidden)[: self.segments]
            for hidden in (got, wanted)
        )
        texts = got.new_zeros(self.segments + 1).index_fill(0, places, 1.0)[: self.segments]
        return (functional.cosine_similarity(one, other) * texts).sum() / texts.sum()
