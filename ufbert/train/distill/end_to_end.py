"""Second stage: all layers together, against the teacher's hidden states and sentence embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ..bert import Bert
from ..device import mixed_precision
from .corpus import TextBatch
from .local import is_feed_forward
from .outputs import Outputs
from .state import State, adam, normalised_error, set_rates
from .teacher import Teacher

__all__ = ["optimizer_of", "train_model", "write_entry"]

LOG_EVERY = 20  # steps


def train_model(state: State, student: Bert, outputs: Outputs) -> None:
    """Train on one chunk of texts after another, in PyTorch's own operations."""
    recipe, optimizer = state.recipe, optimizer_of(state, student)
    recent: list[Tensor] = []
    with tqdm(total=recipe.tokens, initial=state.tokens, desc="end to end", unit="tok", unit_scale=True) as bar:
        while state.done(recipe.tokens) < 1:
            for batch in outputs.chunk(state.chunk, state.batch):
                set_rates(optimizer, state.done(recipe.tokens))
                recent.append(_step(state, student, outputs.teacher, optimizer, batch))
                state.batch += 1
                state.tokens += batch.num_tokens
                bar.update(batch.num_tokens)
                if len(recent) == LOG_EVERY:
                    write_entry(state, bar, *torch.stack(recent).double().mean(0).tolist())
                    recent.clear()
                if state.is_due():
                    state.finite(float(torch.stack(recent).sum()) if recent else 0.0)
                    state.save(student, optimizer)
                if state.done(recipe.tokens) >= 1:
                    break
            else:
                state.chunk, state.batch = state.chunk + 1, 0
    state.finite(float(torch.stack(recent).sum()) if recent else 0.0)


def optimizer_of(state: State, student: Bert) -> torch.optim.Optimizer:
    """Adam over trees, over attention and norms, and over embeddings where they learn, as it was last saved."""
    recipe, rest = state.recipe, list(student.encoder.named_parameters())
    groups = [
        ([p for name, p in rest if is_feed_forward(name)], recipe.rate),
        ([p for name, p in rest if not is_feed_forward(name)], recipe.other_rate),
    ]
    if recipe.embedding_rate:
        groups.append((list(student.embeddings.parameters()), recipe.embedding_rate))
    optimizer = adam(groups)
    state.resume(student, optimizer)
    return optimizer


def write_entry(state: State, bar: tqdm, loss: float, error: float, cosine: float) -> None:
    """Log the means of recent steps."""
    state.finite(loss)
    entry = {"tokens": state.tokens, "loss": loss, "r2": 1 - error, "cosine": cosine}
    state.log.append({"stage": "end_to_end", **{key: round(value, 5) for key, value in entry.items()}})
    bar.set_postfix(loss=f"{loss:.4f}", r2=f"{1 - error:.4f}", cosine=f"{cosine:.4f}")


def _step(state: State, student: Bert, teacher: Teacher, optimizer: torch.optim.Optimizer, batch: TextBatch) -> Tensor:
    """Train on a batch; return loss, error of the last hidden state and mean cosine, on the device."""
    recipe = state.recipe
    wanted = teacher(batch, inputs=False).outputs if batch.outputs is None else list(batch.outputs)
    state.seed_step()
    with mixed_precision(device=state.device):
        outputs = [hidden.float() for hidden in _hidden_states(student, batch)]
    errors = [normalised_error(*triple) for triple in zip(outputs, wanted, state.scale, strict=True)]
    ours, theirs = (batch.pool(hidden[-1], teacher.pooling) for hidden in (outputs, wanted))
    cosine = functional.cosine_similarity(ours, theirs).mean()
    loss = errors[-1] + recipe.cosine_weight * (1 - cosine)
    if len(errors) > 1:
        loss = loss + recipe.layer_weight * torch.stack(errors[:-1]).mean()
    state.guarded(loss.detach())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return torch.stack([loss, errors[-1], cosine]).detach()


def _hidden_states(student: Bert, batch: TextBatch) -> list[Tensor]:
    """What each layer gives for the tokens of a batch, L tensors (T, H)."""
    x, outputs = student.embed(batch.input_ids), []
    mask = student.mask(batch.attention_mask, x.shape[1])
    for layer in student.layers:
        x = layer(x, mask)
        outputs.append(batch.unpadded(x))
    return outputs
