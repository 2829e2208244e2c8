"""Second stage: all layers together, against the teacher's hidden states and sentence embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ..torch import Bert, mixed_precision
from .corpus import TextBatch
from .local import is_feed_forward
from .outputs import Outputs
from .training import State, adam, normalised_error, set_rates

__all__ = ["train_model"]

LOG_EVERY = 20  # steps


def train_model(state: State, student: Bert, outputs: Outputs, optimizer_state: dict[str, Any] | None) -> None:
    """Train on one chunk of texts after another."""
    recipe = state.recipe
    rest = list(student.encoder.named_parameters())
    groups = [
        ([p for name, p in rest if is_feed_forward(name)], recipe.rate),
        ([p for name, p in rest if not is_feed_forward(name)], recipe.other_rate),
    ]
    student.embeddings.requires_grad_(recipe.embedding_rate > 0)
    if recipe.embedding_rate:
        groups.append((list(student.embeddings.parameters()), recipe.embedding_rate))
    optimizer = adam(groups, optimizer_state)
    recent: list[list[float]] = []
    with tqdm(total=recipe.tokens, initial=state.tokens, desc="end to end", unit="tok", unit_scale=True) as bar:
        while state.tokens < recipe.tokens:
            for batch, wanted in outputs.chunk(state.chunk, state.batch):
                set_rates(optimizer, state.tokens / recipe.tokens)
                recent.append(_step(state, student, optimizer, batch, wanted, outputs.teacher.pooling))
                state.batch += 1
                state.tokens += batch.num_tokens
                bar.update(batch.num_tokens)
                if len(recent) == LOG_EVERY:
                    _write(state, bar, np.mean(recent, 0).tolist())
                    recent.clear()
                if state.is_due():
                    state.save(student, optimizer)
                if state.tokens >= recipe.tokens:
                    break
            else:
                state.chunk, state.batch = state.chunk + 1, 0


def _step(
    state: State,
    student: Bert,
    optimizer: torch.optim.Optimizer,
    batch: TextBatch,
    wanted: list[Tensor],
    pooling: str,
) -> list[float]:
    """One step; return loss, error of the last hidden state and mean cosine."""
    recipe = state.recipe
    state.seed_step()
    with mixed_precision():
        outputs = [hidden.float() for hidden in _hidden_states(student, batch)]
    errors = [normalised_error(output, z, scale) for output, z, scale in zip(outputs, wanted, state.scale, strict=True)]
    cosine = functional.cosine_similarity(_pool(outputs[-1], batch, pooling), _pool(wanted[-1], batch, pooling)).mean()
    loss = errors[-1] + recipe.cosine_weight * (1 - cosine)
    if len(errors) > 1:
        loss = loss + recipe.layer_weight * torch.stack(errors[:-1]).mean()
    means = [state.checked(loss.item()), errors[-1].item(), cosine.item()]
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return means


def _hidden_states(student: Bert, batch: TextBatch) -> list[Tensor]:
    """What each layer gives for the tokens of a batch, L tensors (T, H)."""
    x, outputs = student.embed(batch.input_ids), []
    mask = None if batch.mask.all() else batch.mask[:, None, None, :]
    for layer in student.encoder["layer"]:
        x = layer(x, mask)
        outputs.append(x[batch.mask] if mask is not None else x.flatten(0, 1))
    return outputs


def _pool(hidden: Tensor, batch: TextBatch, pooling: str) -> Tensor:
    """Sentence embeddings, not normalised: (T, H) -> (N, H)."""
    starts = torch.from_numpy(batch.ragged.cu_seqlens)
    if pooling == "cls":
        return hidden[starts[:-1]]
    lengths = starts.diff()
    text = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    return hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, text, hidden) / lengths[:, None]


def _write(state: State, bar: tqdm, means: list[float]) -> None:
    loss, error, cosine = means
    entry = {"tokens": state.tokens, "loss": loss, "r2": 1 - error, "cosine": cosine}
    state.log.append({"stage": "end_to_end", **{key: round(value, 5) for key, value in entry.items()}})
    bar.set_postfix(loss=f"{loss:.4f}", r2=f"{1 - error:.4f}", cosine=f"{cosine:.4f}")
