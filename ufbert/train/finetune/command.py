"""Fine-tuning of an encoder on a task, from begin to end, or from where it was interrupted."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ...checkpoint.folder import ModelFolder
from ...checkpoint.tokenization import load_tokenizer
from ...errors import InputError
from ...glue import Task, read_train
from ...glue.data import Rows
from ...glue.evaluate import class_numbers
from ..batches import padded
from ..device import find_device
from ..run import Run, learning_rate, sole_use
from .classifier import Classifier
from .recipe import FinetuneRecipe, batches
from .vocabulary import train_used_rows

__all__ = ["finetune"]

LOG_EVERY = 50  # steps whose losses are averaged to one entry of the log
LOG = "training.json"


@dataclass(kw_only=True)
class TaskRun(Run):
    """A `Run` on the rows of a task: `step` steps are done, `losses` are those since the log's last entry."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    PLACE: ClassVar[tuple[str, ...]] = ("step", "losses")


@dataclass(frozen=True)
class Lesson:
    """What is trained on what: the rows of a task by number, and which of them each step takes."""

    model: Classifier
    input_ids: list[NDArray[np.int64]]
    token_type_ids: list[NDArray[np.int64]]
    targets: Tensor
    plan: list[NDArray[np.int64]]
    put_back: Callable[[], None]  # the word embeddings that no row uses


def finetune(
    encoder: str | os.PathLike[str],
    task: Task,
    data: Path,
    out: str | os.PathLike[str],
    recipe: FinetuneRecipe | None = None,
    seed: int = 0,
    progress: bool = False,
    device: str | torch.device = "cpu",
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
    recipe : FinetuneRecipe, optional
    seed : int
        Of the order of rows, the new weights and dropout; on the CPU of one machine the same seed gives the same
        classifier.
    progress : bool
        Show progress on stderr.
    device : str or torch.device
        "cpu", "cuda", another name that PyTorch knows, or "auto": the GPU if there is one.

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
    recipe, place, target = recipe or FinetuneRecipe(), find_device(device), Path(out)
    train = read_train(task, data)
    made_by = {"task": task.name, "seed": seed, "recipe": asdict(recipe), "rows": len(train)}
    made_by |= {"train_sha256": _digest([train.file]), "encoder_sha256": _digest(_encoder_files(encoder))}
    if target.exists():
        _check_made_by(target / LOG, made_by)
        return target
    run = TaskRun(target.with_name(f".{target.name}.training"), made_by)
    with sole_use(run.folder):
        torch.manual_seed(seed)
        model = Classifier(encoder, max(len(task.labels), 1), recipe.dropout, recipe.top_layers)
        lesson = _prepare(model, task, train, recipe, seed)
        model.to(place)
        run.restore(model)
        _train(run, lesson, recipe, seed, progress, task.name)
        model.to("cpu")
        lesson.put_back()
        _finish(run, model, task, target, recipe)
    return target


def _prepare(model: Classifier, task: Task, train: Rows, recipe: FinetuneRecipe, seed: int) -> Lesson:
    config = model.bert.config
    tokenizer = load_tokenizer(model.source, config.max_position_embeddings, vocab_size=config.vocab_size)
    encodings, _ = tokenizer.encode(train.texts, min(recipe.max_seq_length, tokenizer.max_length))
    input_ids = [np.array(encoding.ids) for encoding in encodings]
    lengths = [len(ids) for ids in input_ids]
    targets = torch.tensor(train.labels if task.regression else class_numbers(task, train))
    if task.regression:  # the scale of the scores need not be learnt
        nn.init.constant_(model.classifier.bias, float(np.mean(targets.numpy())))
    put_back: Callable[[], None] = lambda: None  # noqa: E731
    if recipe.top_layers is None:
        input_ids, put_back = train_used_rows(model.bert.embeddings, input_ids)
    plan = [batch for epoch in range(recipe.epochs) for batch in batches(lengths, recipe.batch_size, seed, epoch)]
    types = [np.array(encoding.type_ids) for encoding in encodings]
    return Lesson(model, input_ids, types, targets, plan, put_back)


def _train(run: TaskRun, lesson: Lesson, recipe: FinetuneRecipe, seed: int, progress: bool, name: str) -> None:
    from tqdm import tqdm

    model, steps = lesson.model, len(lesson.plan)
    optimizer = _optimizer(model, recipe)
    run.resume(model, optimizer)
    model.train()
    with tqdm(total=steps, initial=run.step, disable=not progress, unit="step", desc=name) as bar:
        while run.step < steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe.learning_rate, run.step / steps, recipe.warmup)
            # Dropout is seeded by the step, so that a run that was killed goes on as it would have.
            torch.manual_seed(seed * 1_000_003 + run.step)
            run.losses.append(_step(run, lesson, optimizer, recipe))
            run.step += 1
            if run.step % LOG_EVERY == 0 or run.step == steps:
                loss, seconds = float(np.mean(run.losses)), round(run.elapsed(), 1)
                run.log.append({"step": run.step, "loss": loss, "seconds": seconds})
                run.losses.clear()
                bar.set_postfix(loss=f"{loss:.3f}")
            if run.is_due():
                run.save(model, optimizer)
            bar.update()
    model.eval()


def _step(run: TaskRun, lesson: Lesson, optimizer: torch.optim.Optimizer, recipe: FinetuneRecipe) -> float:
    rows, device = lesson.plan[run.step], lesson.model.bert.device
    mask, *ids = padded([lesson.input_ids[row] for row in rows], [lesson.token_type_ids[row] for row in rows])
    input_ids, token_type_ids = (tensor.to(device) for tensor in ids)
    logits = lesson.model(input_ids, None if mask.all() else mask.to(device), token_type_ids)
    targets = lesson.targets[rows].to(device)
    if targets.is_floating_point():
        loss = functional.mse_loss(logits[:, 0], targets.float())
    else:
        loss = functional.cross_entropy(logits, targets)
    value = run.checked(loss.item(), f"{run.step} steps")
    optimizer.zero_grad()
    loss.backward()
    groups = optimizer.param_groups
    nn.utils.clip_grad_norm_([parameter for group in groups for parameter in group["params"]], recipe.max_grad_norm)
    optimizer.step()
    return value


def _optimizer(model: nn.Module, recipe: FinetuneRecipe) -> torch.optim.Optimizer:
    """AdamW; biases, norms and embeddings do not decay."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    fixed = {name for name, parameter in trained.items() if parameter.ndim < 2 or "embeddings" in name}
    groups = [
        {"params": [p for name, p in trained.items() if name not in fixed], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in trained.items() if name in fixed], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), eps=1e-6, fused=True)


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


def _finish(run: TaskRun, model: Classifier, task: Task, target: Path, recipe: FinetuneRecipe) -> None:
    """Write the classifier folder under another name and give it its own when it is complete."""
    complete = run.folder / "classifier"
    shutil.rmtree(complete, ignore_errors=True)
    model.save(complete, task, list(task.labels.values()) or ["score"], recipe.dtype)
    run.write_log(complete / LOG, {"made_by": run.made_by})
    complete.rename(target)
    shutil.rmtree(run.folder)


def _check_made_by(file: Path, made_by: dict[str, Any]) -> None:
    found = json.loads(file.read_text(encoding="utf-8")).get("made_by") if file.is_file() else None
    if found != made_by:
        raise InputError(
            f"{file.parent}: expected nothing, or what the same call has made before, found another model; remove it "
            "or choose another folder"
        )
