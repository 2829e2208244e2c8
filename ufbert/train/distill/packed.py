"""The end-to-end stage on a GPU: the fast step of `ufbert.train.cuda`, with the same state, log and checkpoints."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from ..bert import Bert
from ..run import learning_rate
from ..tokens import TokenisedTexts
from .corpus import Chunks
from .end_to_end import optimizer_of, write_entry
from .outputs import Outputs
from .state import BETAS, FLOOR, WARM_UP, State
from .teacher import Teacher

if TYPE_CHECKING:
    from ..cuda.packing import Packing
    from ..cuda.step import Stepper

__all__ = ["can_pack", "train_packed"]

LOG_EVERY = 100  # steps
AHEAD = 8  # steps that may be waiting for the GPU
MOST_WORKERS = 6  # processes that pack texts
LONGEST = 128  # tokens: those of a packed row


def can_pack(state: State, student: Bert, outputs: Outputs) -> bool:
    """Tell whether the fast step can train this student; plain PyTorch does elsewhere."""
    teacher = outputs.teacher
    head = student.config.hidden_size // student.config.num_attention_heads
    acts = {student.config.hidden_act, teacher.config.hidden_act} - {"identity"}
    return (
        state.device.type == "cuda"
        and importlib.util.find_spec("triton") is not None
        and teacher.module is not None
        and head in (16, 32, 64, 128)
        and acts <= {"gelu"}
        and state.recipe.max_length <= LONGEST
        and outputs.folder is None
        and not state.recipe.chunks
        and student.config.first_position == 0
        and student.config.type_vocab_size > 0
        and student.config.embedding_size in (0, student.config.hidden_size)
        and (student.config.feed_forward != "fff" or student.config.output_bias)
    )


def train_packed(state: State, student: Bert, teacher: Teacher, texts: Chunks) -> None:
    """Train on packed batches until the tokens or the seconds of the recipe are over."""
    from ..cuda.packing import batches

    recipe, largest = state.recipe, _rates(state)
    packing = _packing(state, texts.max_length)
    optimizer = optimizer_of(state, student)
    stepper = _stepper(state, student, teacher, optimizer, packing)
    tokenised = TokenisedTexts.of(texts.lines, texts.tokenizer)
    workers = min(MOST_WORKERS, max(1, (os.cpu_count() or 1) - 1)) if state.device.type == "cuda" else 0
    waiting = 0
    with tqdm(total=recipe.tokens, initial=state.tokens, desc="end to end", unit="tok", unit_scale=True) as bar:
        for batch in batches(tokenised, packing, state.batch, workers):
            done = state.done(recipe.tokens)
            if done >= 1:
                break
            stepper.set_rates(*(learning_rate(rate, done, WARM_UP, FLOOR) for rate in largest))
            stepper.step(batch)
            tokens, waiting = int((batch[2] < packing.segments).sum()), waiting + 1
            state.batch, state.tokens = state.batch + 1, state.tokens + tokens
            bar.update(tokens)
            if waiting % AHEAD == 0 and state.device.type == "cuda":
                torch.cuda.synchronize()
            if waiting == LOG_EVERY or state.is_due():
                write_entry(state, bar, *(figure / waiting for figure in stepper.take_figures()))
                waiting = 0
            if state.is_due():
                stepper.finish(student, optimizer)
                state.save(student, optimizer)
    if waiting:
        write_entry(state, bar, *(figure / waiting for figure in stepper.take_figures()))
    stepper.finish(student, optimizer)


def _rates(state: State) -> tuple[float, ...]:
    recipe = state.recipe
    return (recipe.rate, recipe.other_rate, recipe.embedding_rate)


def _packing(state: State, max_length: int) -> Packing:
    from ..cuda.packing import Packing

    recipe = state.recipe
    shares = recipe.joined, recipe.cropped, recipe.noisy
    rows = max(1, recipe.batch_tokens // LONGEST)
    return Packing(rows * LONGEST, recipe.seed, max_length, *shares)


def _stepper(
    state: State, student: Bert, teacher: Teacher, optimizer: torch.optim.Optimizer, packing: Packing
) -> Stepper:
    """The student and its teacher on the device, with the moments that a checkpoint kept; a graph on a GPU."""
    from ..cuda import functions
    from ..cuda.model import PackedBert
    from ..cuda.step import Goal, Stepper

    recipe = state.recipe
    packed = PackedBert(student, state.device, functions.HALF, recipe.decision_gradient, recipe.switch_cost)
    for parameter in packed.parameter_groups()[2]:
        parameter.requires_grad_(recipe.embedding_rate > 0)
    assert teacher.module is not None  # `can_pack` saw it
    frozen = PackedBert(teacher.module, state.device, functions.SCORE).requires_grad_(False)
    goal = Goal(state.scale, teacher.pooling, recipe.cosine_weight, recipe.layer_weight)
    stepper = Stepper(packed, frozen, goal, (3, packing.tokens), packing.segments, BETAS)
    stepper.read_moments(student, optimizer)
    if state.device.type == "cuda":
        stepper.capture()
    return stepper
