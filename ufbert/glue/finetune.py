"""Fine-tuning of an encoder on a task: one recipe for all tasks, resumable. Needs the extra ``train``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoint.files import ModelFolder
from ..checkpoint.tokenization import load_tokenizer
from ..errors import InputError
from ..torch.sole_use import sole_use
from .classifier import Classifier
from .data import Rows, read_train
from .evaluate import class_numbers
from .recipe import Recipe, batches, learning_rate
from .state import read_state, write_state
from .tasks import Task
from .vocabulary import train_used_rows

__all__ = ["Run", "finetune"]

LOG_EVERY = 50  # steps whose losses are averaged to one entry of the log
SAVE_EVERY = 60.0  # seconds between two states on disk
LOG = "training.json"


@dataclass
class Run:
    """A training run: what is trained on what, and how far it has come."""

    model: Classifier
    optimizer: torch.optim.Optimizer
    input_ids: list[np.ndarray]
    token_type_ids: list[np.ndarray]
    targets: Tensor
    plan: list[np.ndarray]  # the rows of each step
    finish: Callable[[], None]
    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)  # since the log's last entry


def finetune(
    encoder: str | os.PathLike[str],
    task: Task,
    data: Path,
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Fine-tune an encoder on the training rows of a task.

    Parameters
    ----------
    encoder : str or path
        Model folder of a BERT, dense or with FFF layers.
    task : Task
    data : Path
        Where its files are.
    out : str or path
        The classifier folder to make; it appears when it is complete. What was trained so far stands beside it, in
        ``.NAME.training``: the same call after a kill goes on from there, and a finished folder is left as it is.
    recipe : Recipe, optional
    seed : int
        Of the order of rows, the new weights and dropout; on one machine the same seed gives the same classifier.
    progress : bool
        Show progress on stderr.

    Returns
    -------
    Path
        `out`, a folder that `ufbert.TextClassifier` and, for a dense encoder, transformers load, with a log in
        ``training.json``.

    Raises
    ------
    InputError
        If `out` exists and was made by another call, another process is making it, or the data do not fit.
    CheckpointError
        If the encoder is not usable.
    """
    recipe, target = recipe or Recipe(), Path(out)
    train = read_train(task, data)
    made_by = {"task": task.name, "seed": seed, "recipe": asdict(recipe), "rows": len(train)}
    made_by |= {"train_sha256": _digest([train.file]), "encoder_sha256": _digest(_encoder_files(encoder))}
    if target.exists():
        _check_made_by(target / LOG, made_by)
        return target
    scratch = target.with_name(f".{target.name}.training")
    with sole_use(scratch):
        torch.manual_seed(seed)
        model = Classifier(encoder, max(len(task.labels), 1), recipe.dropout, recipe.top_layers)
        run, state = _begin(model, task, train, recipe, seed), scratch / "state.safetensors"
        read_state(state, run, made_by)
        _train(run, recipe, seed, lambda: write_state(state, run, made_by), progress, task.name)
        _finish(run, task, scratch, target, made_by, recipe)
    return target


def _begin(model: Classifier, task: Task, train: Rows, recipe: Recipe, seed: int) -> Run:
    config = model.bert.config
    tokenizer = load_tokenizer(model.source, config.max_position_embeddings, vocab_size=config.vocab_size)
    encodings, _ = tokenizer.encode(train.texts, min(recipe.max_seq_length, tokenizer.max_length))
    input_ids = [np.array(encoding.ids) for encoding in encodings]
    lengths = [len(ids) for ids in input_ids]
    targets = torch.tensor(train.labels if task.regression else class_numbers(task, train))
    if task.regression:  # the scale of the scores need not be learnt
        nn.init.constant_(model.classifier.bias, float(np.mean(targets.numpy())))
    finish: Callable[[], None] = lambda: None  # noqa: E731
    if recipe.top_layers is None:
        input_ids, finish = train_used_rows(model.bert.embeddings, input_ids)
    plan = [batch for epoch in range(recipe.epochs) for batch in batches(lengths, recipe.batch_size, seed, epoch)]
    types = [np.array(encoding.type_ids) for encoding in encodings]
    return Run(model, _optimizer(model, recipe), input_ids, types, targets, plan, finish)


def _train(run: Run, recipe: Recipe, seed: int, save: Callable[[], None], progress: bool, name: str) -> None:
    from tqdm import tqdm

    run.model.train()
    with tqdm(total=len(run.plan), initial=run.step, disable=not progress, unit="step", desc=name) as bar:
        saved = start = time.monotonic()
        while run.step < len(run.plan):
            _step(run, recipe, seed)
            run.seconds, start = run.seconds + time.monotonic() - start, time.monotonic()
            if run.step % LOG_EVERY == 0 or run.step == len(run.plan):
                run.log.append({"step": run.step, "loss": float(np.mean(run.losses)), "seconds": round(run.seconds, 1)})
                run.losses.clear()
                bar.set_postfix(loss=f"{run.log[-1]['loss']:.3f}")
            if start - saved >= SAVE_EVERY:
                save()
                saved = start = time.monotonic()
            bar.update()
    run.model.eval()
    run.finish()


def _step(run: Run, recipe: Recipe, seed: int) -> None:
    # Dropout is seeded by the step, so that a run that was killed goes on as it would have.
    torch.manual_seed(seed * 1_000_003 + run.step)
    rows = run.plan[run.step]
    targets = run.targets[rows]
    logits = run.model(*_padded([run.input_ids[row] for row in rows], [run.token_type_ids[row] for row in rows]))
    if targets.is_floating_point():
        loss = functional.mse_loss(logits[:, 0], targets.float())
    else:
        loss = functional.cross_entropy(logits, targets)
    run.optimizer.zero_grad()
    loss.backward()
    groups = run.optimizer.param_groups
    nn.utils.clip_grad_norm_([parameter for group in groups for parameter in group["params"]], recipe.max_grad_norm)
    for group in groups:
        group["lr"] = learning_rate(recipe, run.step, len(run.plan))
    run.optimizer.step()
    run.losses.append(loss.item())
    run.step += 1


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; biases, norms and embeddings do not decay."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    fixed = {name for name, parameter in trained.items() if parameter.ndim < 2 or "embeddings" in name}
    groups = [
        {"params": [p for name, p in trained.items() if name not in fixed], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in trained.items() if name in fixed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


def _padded(input_ids: list[np.ndarray], token_type_ids: list[np.ndarray]) -> tuple[Tensor, Tensor | None, Tensor]:
    """Ids, mask (None where nothing is padded) and token types of a batch, each (N, S)."""
    lengths = np.array([len(ids) for ids in input_ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids, types = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.int64)
    ids[mask], types[mask] = np.concatenate(input_ids), np.concatenate(token_type_ids)
    return torch.from_numpy(ids), None if mask.all() else torch.from_numpy(mask), torch.from_numpy(types)


def _encoder_files(encoder: str | os.PathLike[str]) -> list[Path]:
    folder = ModelFolder(encoder).transformer()
    return [folder.path / "config.json", *folder.weight_files()]


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            while chunk := stream.read(2**20):
                digest.update(chunk)
    return digest.hexdigest()


def _finish(run: Run, task: Task, scratch: Path, target: Path, made_by: dict[str, Any], recipe: Recipe) -> None:
    """Write the classifier folder under another name and give it its own when it is complete."""
    complete = scratch / "classifier"
    shutil.rmtree(complete, ignore_errors=True)
    run.model.save(complete, task, list(task.labels.values()) or ["score"], recipe.dtype)
    text = json.dumps({"made_by": made_by, "seconds": round(run.seconds, 1), "log": run.log}, indent=1)
    (complete / LOG).write_text(text + "\n", encoding="utf-8")
    complete.rename(target)
    shutil.rmtree(scratch)


def _check_made_by(file: Path, made_by: dict[str, Any]) -> None:
    found = json.loads(file.read_text(encoding="utf-8")).get("made_by") if file.is_file() else None
    if found != made_by:
        raise InputError(
            f"{file.parent}: expected nothing, or what the same call has made before, found another model; remove it "
            "or choose another folder"
        )
