"""What a model folder is to GLUE: a classifier of one task, a folder of classifiers, or a bare encoder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint.folder import ModelFolder
from ..errors import InputError
from .tasks import find_task

__all__ = ["find_classifiers"]


def find_classifiers(model: str | os.PathLike[str], tasks: Sequence[str] | None) -> dict[str, Path]:
    """Find classifier folders by task.

    Parameters
    ----------
    model : str or path
        A classifier folder, a folder of such folders named as their tasks, or the folder of an encoder.
    tasks : sequence of str, optional
        Only these; None for what is there. A classifier folder says in ``config.json`` (``finetuning_task``) what it
        was trained for.

    Returns
    -------
    dict of str to Path
        Empty for an encoder.

    Raises
    ------
    InputError
        If `tasks` has others than the classifiers that are there.
    CheckpointError
        If the folder is not usable.
    """
    root = ModelFolder(model).complete()
    if root.has("config.json") or root.has("modules.json"):
        return _one(root.transformer(), tasks)
    folders = [path for path in sorted(root.path.iterdir()) if (path / "config.json").is_file()]
    found = {path.name: path for path in folders if _is_classifier(ModelFolder(path))}
    if not found:
        root.read_json("config.json")  # says what is missing
    wanted = [find_task(name).name for name in tasks] if tasks else list(found)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(
            f"{root.path}: expected a classifier folder for {', '.join(missing)}, found those for {', '.join(found)}; "
            "leave the tasks out, or fine-tune for them"
        )
    return {name: found[name] for name in wanted}


def _one(root: ModelFolder, tasks: Sequence[str] | None) -> dict[str, Path]:
    if not _is_classifier(root):
        return {}
    trained_for = root.read_json("config.json").get("finetuning_task")
    names = list(tasks or ([trained_for] if isinstance(trained_for, str) else []))
    if len(names) != 1:
        raise InputError(
            f"{root.path}: expected the one task that it was trained for, got {', '.join(names) or 'none'}; "
            "name it with --tasks"
        )
    return {find_task(names[0]).name: root.path}


def _is_classifier(folder: ModelFolder) -> bool:
    return folder.config().task == "sequence-classification"
