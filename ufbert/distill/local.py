"""First stage: each layer by itself, on the teacher's own activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..torch import Bert
from .corpus import Corpus
from .grow import grow
from .revive import revive_layers
from .teacher import Teacher
from .training import State, adam, normalised_error, set_rates

__all__ = ["start_layers", "train_layers"]

REVIVAL = 100_000  # tokens that tell which parts of trees are dead
LONGEST_GROWTH = 250_000  # tokens: their activations of all layers are held at once, as float16
Pairs = list[tuple[Tensor, Tensor]]  # for each layer what its feed-forward layer reads, and what the layer gives


def start_layers(state: State, student: Bert, teacher: Teacher, corpus: Corpus, grown: bool = False) -> None:
    """Set scales, output biases and trees from the activations of the first chunks.

    Of a model that is `grown` already set scales, and revive its dead subtrees. `state.batch` counts the layers that
    are done, so that a checkpoint keeps them.
    """
    recipe, chunk = state.recipe, 0
    wanted = min(LONGEST_GROWTH, max(recipe.grow_tokens // recipe.num_trees, 20_000))
    collected: list[list[tuple[Tensor, Tensor]]] = []
    found = 0
    while found < wanted:
        pairs = _activations(teacher, corpus, chunk)
        collected.append([(x.half(), z.half()) for x, z in pairs])
        found += len(pairs[0][0])
        chunk += 1
    layers = student.encoder["layer"]
    scales = []
    with tqdm(total=len(layers), desc="growing", unit="layer") as bar:
        for index, layer in enumerate(layers):
            x, z = (torch.cat([pairs[index][part] for pairs in collected]).float() for part in (0, 1))
            # Of whole chunks: single batches have texts of one length. Nothing where the norm's weight is nothing.
            deviation = z.std(0)
            scales.append(deviation.clamp(min=float(deviation.mean()) / 10))
            bar.update()
            if grown or index < state.batch:
                continue
            x = x[:wanted]
            y = _feed_forward_output(teacher, index, x)
            if layer.ffn is not None and recipe.grow_tokens:
                weight = layer.output["LayerNorm"].weight.detach()
                grow(layer.ffn, x, y, weight.abs() / scales[-1] / (x + y).std(1).mean())
            else:
                _start_at_mean(layer, y.mean(0))
            _layer_done(state, student)
    state.scale = torch.stack(scales)
    if grown and student.config.feed_forward == "fff" and recipe.grow_tokens:
        for _ in revive_layers(student, teacher, corpus, state.scale, chunk, REVIVAL, state.batch):
            _layer_done(state, student)
    state.chunk = chunk


def train_layers(
    state: State, student: Bert, teacher: Teacher, corpus: Corpus, optimizer_state: dict[str, Any] | None
) -> None:
    """Train on cached activations of one chunk after another."""
    recipe, layers = state.recipe, student.encoder["layer"]
    parameters = [p for name, p in student.named_parameters() if is_feed_forward(name)]
    norms = [p for layer in layers for p in layer.output["LayerNorm"].parameters()]
    optimizer = adam([(parameters, recipe.local_rate), (norms, recipe.other_rate)], optimizer_state)
    with tqdm(total=recipe.local_tokens, initial=state.tokens, desc="layers", unit="tok", unit_scale=True) as bar:
        while state.tokens < recipe.local_tokens:
            pairs = _activations(teacher, corpus, state.chunk)
            errors = np.mean([_one_pass(state, student, optimizer, pairs, bar) for _ in range(recipe.local_passes)], 0)
            state.chunk += 1
            r2 = [round(1 - float(error), 4) for error in errors]
            state.log.append({"stage": "local", "tokens": state.tokens, "loss": float(errors.mean()), "r2": r2})
            bar.set_postfix(loss=f"{errors.mean():.4f}", r2=f"{np.mean(r2):.4f}")
            if state.is_due():
                state.save(student, optimizer)


def _layer_done(state: State, student: Bert) -> None:
    state.batch += 1
    if state.is_due():
        state.save(student, None)


def is_feed_forward(name: str) -> bool:
    """Tell whether a parameter of `Bert` is of a feed-forward layer."""
    return ".ffn." in name or ".intermediate." in name or (".output.dense." in name and ".attention." not in name)


def _one_pass(state: State, student: Bert, optimizer: torch.optim.Optimizer, pairs: Pairs, bar: tqdm) -> np.ndarray:
    """Train each layer once on a chunk's tokens in random order; return their mean errors (L,)."""
    recipe, layers = state.recipe, student.encoder["layer"]
    generator = torch.Generator().manual_seed(recipe.seed + state.tokens)
    steps = torch.randperm(len(pairs[0][0]), generator=generator).split(recipe.batch_tokens)
    sums = np.zeros(len(layers))
    for tokens in steps:
        set_rates(optimizer, state.tokens / recipe.local_tokens)
        state.seed_step()
        for index, (layer, (x, z)) in enumerate(zip(layers, pairs, strict=True)):
            x_now = x[tokens]
            output = layer.output["LayerNorm"](layer.feed_forward(x_now) + x_now)
            error = normalised_error(output, z[tokens], state.scale[index])
            sums[index] += state.checked(error.item())
            error.backward()
        optimizer.step()
        optimizer.zero_grad()
        state.tokens += len(tokens)
        bar.update(len(tokens))
    return sums / len(steps)


def _activations(teacher: Teacher, corpus: Corpus, chunk: int) -> Pairs:
    """Run the teacher over one chunk: for each layer (T, H) inputs and outputs."""
    runs = [teacher(batch.ragged) for batch in corpus.chunk(chunk)]
    return [
        tuple(torch.from_numpy(np.concatenate([getattr(run, part)[index] for run in runs]))
              for part in ("inputs", "outputs"))
        for index in range(teacher.config.num_hidden_layers)
    ]  # fmt: skip


def _feed_forward_output(teacher: Teacher, index: int, x: Tensor) -> Tensor:
    """What the teacher's feed-forward layer gives for its inputs: (T, H) -> (T, H)."""
    layer, zero = teacher.model.encoder.layers[index].feed_forward, np.zeros((4_096, x.shape[1]), np.float32)
    return torch.cat([torch.from_numpy(layer(part.numpy(), zero[: len(part)])) for part in x.split(4_096)])


@torch.no_grad()
def _start_at_mean(layer: Any, mean: Tensor) -> None:
    """Let a layer give the mean of the wanted outputs, and small neurons beside it."""
    out = layer.ffn.linear_out if layer.ffn is not None else layer.output["dense"]
    out.weight.mul_(0.1)
    out.bias.copy_(mean)
