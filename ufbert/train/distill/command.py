"""A conversion from begin to end, or from where it was interrupted."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import torch

from ...checkpoint.folder import ModelFolder
from ...checkpoint.writing import checked_place
from ...errors import InputError
from ...routes import Corpus
from ..bert import Bert
from ..device import find_device
from ..run import sole_use
from ..tokens import TokenisedLines
from .corpus import Chunks
from .curves import draw
from .end_to_end import train_model
from .folder import write_student
from .local import start_layers, train_layers
from .outputs import Outputs
from .packed import can_pack, train_packed
from .recipe import Recipe
from .revive import add_trees
from .state import State
from .teacher import Teacher

__all__ = ["distill"]


def distill(
    teacher: str | os.PathLike[str],
    corpus: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    teacher_dtype: str = "auto",
    start: str | os.PathLike[str] | None = None,
    keep_outputs: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    plain: bool = False,
) -> Path:
    """Replace the feed-forward layers of a dense BERT by trees, and train them.

    Parameters
    ----------
    teacher : str or path
        A dense model folder, plain or of sentence-transformers.
    corpus : str or path
        One text a line, UTF-8, plain or packed (.xz, .gz); or a ``.tokens`` file or a folder of such files, which
        `ufbert.train.tokens` wrote with the teacher's tokenizer.
    out : str or path
        The folder to make. Beside it, ``OUT.training`` holds checkpoints, the log and a plot of the curves; where it
        is there already, the conversion goes on from it, on the same or on another device.
    recipe : Recipe, optional
    teacher_dtype : {"auto", "float32", "bfloat16", "int8", "float16"}
        How precisely the teacher runs; see `Teacher`.
    start : str or path, optional
        A model folder that was converted so before, to go on from: its dead subtrees are revived, trees are added
        where the recipe has more, and it is trained end to end, not layer by layer.
    keep_outputs : str or path, optional
        A folder that keeps the teacher's outputs of the end-to-end stage, for other conversions with the same teacher,
        corpus, seed and batches, such as controls; see `Outputs`.
    device : str or torch.device
        "cpu", "cuda", another name that PyTorch knows, or "auto": the GPU if there is one.
    plain : bool
        On the CPU, run teacher and trees in plain PyTorch as on other devices, not on the kernels.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    UfbertError
        If an argument, the teacher or the corpus is not usable, or another process is making `out`.
    """
    recipe, place = recipe or Recipe(), find_device(device)
    target, source = checked_place(out), ModelFolder(teacher).complete().path
    torch.manual_seed(recipe.seed)
    master = Teacher(os.fspath(source), teacher_dtype, place, plain)
    lines = TokenisedLines.read(corpus, master.tokenizer) or list(Corpus(corpus))
    if len(lines) < 1_000:
        raise InputError(f"{corpus}: expected at least 1,000 texts to train on, found {len(lines)}; give more")
    facts = {"teacher": Path(teacher).name, "corpus": Path(corpus).name, "texts": str(len(lines))}
    facts |= {"start": "" if start is None else Path(start).name, "teacher_dtype": master.dtype}
    state = State.of(Path(f"{target}.training"), recipe, facts, teacher_dtype, place)
    student = _new_student(source, recipe) if start is None else _started(Path(start), recipe, master)
    _prepare(student.to(place), recipe, plain)
    texts = Chunks(lines, master.texts, recipe, place)
    kept = None if keep_outputs is None else Path(keep_outputs)
    outputs = Outputs(master, texts, recipe, kept, facts)
    with sole_use(state.folder):
        state.restore(student)
        _train(state, student, master, texts, outputs)
        write_student(state, student, source, target)
    return target


def _train(state: State, student: Bert, teacher: Teacher, texts: Chunks, outputs: Outputs) -> None:
    """Go through the stages that are not over, and write log and curves."""
    started = bool(state.source["start"])
    if state.stage == "grow":
        start_layers(state, student, teacher, texts, grown=started)
        state.enter("end_to_end" if started else "local", student)
    if state.stage == "local":
        train_layers(state, student, teacher, texts)
        state.enter("end_to_end", student)
    if state.stage == "end_to_end":
        if can_pack(state, student, outputs):
            train_packed(state, student, teacher, texts)
        else:
            train_model(state, student, outputs)
        state.trained = state.tokens
        state.enter("done", student)
    facts = {
        "recipe": asdict(state.recipe),
        "source": state.source,
        "device": state.device.type,
        "tokens": state.trained,
    }
    state.write_log(state.folder / "log.json", facts)
    draw(state.log, state.folder / "curves.png")


def _new_student(teacher: Path, recipe: Recipe) -> Bert:
    """The teacher with feed-forward layers of random weights."""
    student = Bert.from_folder(teacher)
    student.replace_feed_forward(**recipe.feed_forward(student.config.hidden_size))
    return student


def _prepare(student: Bert, recipe: Recipe, plain: bool) -> None:
    """Say what is to learn, and how."""
    student.embeddings.requires_grad_(recipe.embedding_rate > 0)
    for layer in student.layers:
        if layer.ffn is not None:
            layer.ffn.decision_gradient, layer.ffn.switch_cost = recipe.decision_gradient, recipe.switch_cost
            layer.ffn.plain = plain


def _started(folder: Path, recipe: Recipe, teacher: Teacher) -> Bert:
    """Read a model that was converted before: of the recipe's shape, and of the teacher's."""
    student, config = Bert.from_folder(folder), teacher.config
    shape = {name: getattr(config, name) for name in ("hidden_size", "num_hidden_layers", "vocab_size")}
    for name, wanted in (shape | recipe.feed_forward(config.hidden_size)).items():
        found = getattr(student.config, name)
        if found != wanted and not (name == "num_trees" and found < wanted):
            raise InputError(
                f"{folder}: expected a model with {name} = {wanted!r}, as teacher and recipe say, found {found!r}; "
                "give depth and control as they were when it was converted, and no fewer trees"
            )
    if recipe.control is None and student.config.num_trees < recipe.num_trees:
        add_trees(student, recipe.num_trees)
    return student
