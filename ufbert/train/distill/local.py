"""First stage: each layer by itself, on the teacher's own activations."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..bert import Bert, BertLayer
from ..device import mixed_precision
from .corpus import Chunks
from .grow import grow
from .recipe import Recipe
from .revive import revive_layers
from .state import State, adam, normalised_error, set_rates
from .teacher import Teacher

__all__ = ["is_feed_forward", "start_layers", "train_layers"]

REVIVAL = 100_000  # tokens that tell which parts of trees are dead
LONGEST_GROWTH = 250_000  # tokens: their activations of all layers are held at once, as float16
Pairs = list[tuple[Tensor, Tensor]]  # for each layer what its feed-forward layer reads, and what the layer gives


def start_layers(state: State, student: Bert, teacher: Teacher, corpus: Chunks, grown: bool = False) -> None:
    """Set scales, output biases and trees from the activations of the first chunks.

    Of a model that is `grown` already set scales, and revive its dead subtrees. `state.batch` counts the layers that
    are done, so that a checkpoint keeps them.
    """
    recipe = state.recipe
    wanted = min(LONGEST_GROWTH, max(recipe.grow_tokens // recipe.num_trees, 20_000))
    collected, chunk = _collect(teacher, corpus, wanted)
    scales = []
    with tqdm(total=len(student.layers), desc="growing", unit="layer") as bar:
        for index, layer in enumerate(student.layers):
            x, z = (torch.cat([pairs[index][part] for pairs in collected]).float() for part in (0, 1))
            # Of whole chunks: single batches have texts of one length. Nothing where the norm's weight is nothing.
            deviation = z.std(0)
            scales.append(deviation.clamp(min=float(deviation.mean()) / 10))
            bar.update()
            if grown or index < state.batch:
                continue
            x = x[:wanted]
            _start_layer(recipe, layer, x, teacher.feed_forward(index, x), scales[-1])
            _layer_done(state, student)
    state.tensors["scale"] = torch.stack(scales)
    if grown and student.config.feed_forward == "fff" and recipe.grow_tokens:
        for _ in revive_layers(student, teacher, corpus, state.scale, chunk, REVIVAL, state.batch):
            _layer_done(state, student)
    state.chunk = chunk


def train_layers(state: State, student: Bert, teacher: Teacher, corpus: Chunks) -> None:
    """Train on cached activations of one chunk after another."""
    recipe = state.recipe
    parameters = [p for name, p in student.named_parameters() if is_feed_forward(name)]
    norms = [p for layer in student.layers for p in layer.norm2.parameters()]
    optimizer = adam([(parameters, recipe.local_rate), (norms, recipe.other_rate)])
    state.resume(student, optimizer)
    with tqdm(total=recipe.local_tokens, initial=state.tokens, desc="layers", unit="tok", unit_scale=True) as bar:
        while state.done(recipe.local_tokens) < 1:
            pairs = _activations(teacher, corpus, state.chunk)
            errors = np.mean([_one_pass(state, student, optimizer, pairs, bar) for _ in range(recipe.local_passes)], 0)
            state.chunk += 1
            r2 = [round(1 - float(error), 4) for error in errors]
            state.log.append({"stage": "local", "tokens": state.tokens, "loss": float(errors.mean()), "r2": r2})
            bar.set_postfix(loss=f"{errors.mean():.4f}", r2=f"{np.mean(r2):.4f}")
            if state.is_due():
                state.save(student, optimizer)


def is_feed_forward(name: str) -> bool:
    """Tell whether a parameter of `Bert` is of a feed-forward layer."""
    return ".ffn." in name or ".feed_forward_" in name


def _collect(teacher: Teacher, corpus: Chunks, wanted: int) -> tuple[list[Pairs], int]:
    """Run the teacher over the first chunks until there are enough tokens; also return how many chunks that took."""
    collected: list[Pairs] = []
    found = chunk = 0
    while found < wanted:
        pairs = _activations(teacher, corpus, chunk)
        collected.append([(x.half(), z.half()) for x, z in pairs])
        found += len(pairs[0][0])
        chunk += 1
    return collected, chunk


def _start_layer(recipe: Recipe, layer: BertLayer, x: Tensor, y: Tensor, scale: Tensor) -> None:
    """Grow trees that give y for x, or let a layer give the mean of y, and small neurons beside it."""
    if layer.ffn is not None and recipe.grow_tokens:
        weight = layer.norm2.weight.detach()
        grow(layer.ffn, x, y, weight.abs() / scale / (x + y).std(1).mean())
        return
    out = layer.halves[1]
    with torch.no_grad():
        out.weight.mul_(0.1)
        out.bias.copy_(y.mean(0))


def _layer_done(state: State, student: Bert) -> None:
    state.batch += 1
    if state.is_due():
        state.save(student)


def _one_pass(
    state: State, student: Bert, optimizer: torch.optim.Optimizer, pairs: Pairs, bar: tqdm
) -> NDArray[np.float64]:
    """Train each layer once on a chunk's tokens in random order; return their mean errors (L,)."""
    recipe = state.recipe
    generator = torch.Generator().manual_seed(recipe.seed + state.tokens)
    steps = torch.randperm(len(pairs[0][0]), generator=generator).split(recipe.batch_tokens)
    sums = torch.zeros(len(pairs), dtype=torch.float64, device=state.device)
    made = 0
    for tokens in steps:
        set_rates(optimizer, state.done(recipe.local_tokens))
        state.seed_step()
        for index, (layer, (x, z)) in enumerate(zip(student.layers, pairs, strict=True)):
            rows = tokens.to(state.device)
            error = _error(state, layer, x[rows], z[rows], index)
            sums[index] += state.guarded(error.detach())
            error.backward()
        optimizer.step()
        optimizer.zero_grad()
        state.tokens += len(tokens)
        bar.update(len(tokens))
        made += 1
        if recipe.seconds and state.done(recipe.local_tokens) == 1:
            break
    means: NDArray[np.float64] = (sums / made).cpu().numpy()
    state.finite(float(means.sum()))
    return means


def _error(state: State, layer: BertLayer, x: Tensor, z: Tensor, index: int) -> Tensor:
    with mixed_precision(state.device.type != "cpu", state.device):
        output = layer.norm2(layer.feed_forward(x) + x)
    return normalised_error(output.float(), z, state.scale[index])


def _activations(teacher: Teacher, corpus: Chunks, chunk: int) -> Pairs:
    """Run the teacher over one chunk: for each layer (T, H) inputs and outputs."""
    runs = [teacher(batch) for batch in corpus.chunk(chunk)]
    layers = range(teacher.config.num_hidden_layers)
    return [(torch.cat([r.inputs[i] for r in runs]), torch.cat([r.outputs[i] for r in runs])) for i in layers]
