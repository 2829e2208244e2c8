"""The student as a plain model folder."""

from __future__ import annotations

from pathlib import Path

from ...checkpoint.families import rewritten
from ...checkpoint.folder import ModelFolder
from ...checkpoint.tensors import encoded
from ...checkpoint.writing import new_folder
from ..bert import Bert
from .card import card
from .state import State

__all__ = ["write_student"]


def write_student(state: State, student: Bert, teacher: Path, target: Path) -> None:
    """Write the teacher's folder anew with the student's weights, float16."""
    source = ModelFolder(teacher)
    neurons = student.layers[0].halves[0].out_features
    tensors = {name: encoded(name, array, "float16") for name, array in sorted(student.tensors().items())}
    with new_folder(target) as complete:
        source.copy_to(complete, tensors, _config(source.transformer(), student))
        (complete / "README.md").write_text(card(state, target.name, neurons))  # in place of the teacher's


def _config(source: ModelFolder, student: Bert) -> dict[str, object]:
    """The teacher's settings with the student's feed-forward layers."""
    config = rewritten(source.read_json("config.json"), student.config) | {"dtype": "float16"}
    config.pop("torch_dtype", None)
    return config
