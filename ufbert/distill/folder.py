"""The student as a plain model folder."""

from __future__ import annotations

import json
from pathlib import Path

from ..checkpoint.files import ModelFolder
from ..checkpoint.sentence import list_modules
from ..checkpoint.tensors import encoded, write_tensors
from ..checkpoint.writing import copy_settings, new_folder
from ..torch import Bert
from .card import card
from .training import State

__all__ = ["write_student"]


def write_student(state: State, student: Bert, teacher: Path, target: Path) -> None:
    """Write the teacher's folder anew with the student's weights, float16."""
    source = ModelFolder(teacher)
    modules = list_modules(source) if source.has("modules.json") else [("Transformer", "")]
    with new_folder(target) as complete:
        copy_settings(source, complete)
        for kind, path in modules:
            if kind != "Normalize":
                (complete / path).mkdir(parents=True, exist_ok=True)
                copy_settings(source.subfolder(path), complete / path)
        root = complete / modules[0][1]
        layer = student.encoder["layer"][0]
        neurons = len(layer.ffn.linear_in.weight if layer.ffn is not None else layer.intermediate["dense"].weight)
        (complete / "README.md").write_text(card(state, target.name, neurons))  # in place of the teacher's
        config = _config(ModelFolder(teacher / modules[0][1]), student)
        (root / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {name: encoded(name, array, "float16") for name, array in sorted(student.tensors().items())}
        write_tensors(root / "model.safetensors", tensors)


def _config(source: ModelFolder, student: Bert) -> dict[str, object]:
    """The teacher's settings with the student's feed-forward layers."""
    config = source.read_json("config.json") | {"architectures": ["BertModel"], "dtype": "float16"}
    config.pop("torch_dtype", None)
    mine = student.config
    if mine.feed_forward == "fff":
        config |= {"model_type": "ufbert", "feed_forward": "fff", "num_trees": mine.num_trees, "depth": mine.depth}
        config |= {"output_bias": True, "hidden_act": "gelu"}
        config.pop("intermediate_size", None)
    else:
        names = {"identity": "linear"}
        config |= {"intermediate_size": mine.intermediate_size}
        config["hidden_act"] = names.get(mine.hidden_act, mine.hidden_act)
    return config
