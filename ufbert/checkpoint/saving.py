"""Write a sentence-transformers folder anew, with settings that its user has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .files import SENTENCE_SETTINGS
from .folder import TRANSFORMER_SETTINGS, ModelFolder
from .sentence import POOLING_MODES, SentenceModel, SentenceSettings
from .writing import new_folder

__all__ = ["save_sentence_model"]


def save_sentence_model(
    source: ModelFolder,
    target: str | os.PathLike[str],
    model: SentenceModel,
    settings: SentenceSettings,
    max_seq_length: int,
) -> None:
    """Copy a model folder; weights stay as they are.

    Parameters
    ----------
    source : ModelFolder
    target : str or path
        A free name, or an empty folder.
    model : SentenceModel
        What was loaded from `source`; its pooling is written.
    settings : SentenceSettings
    max_seq_length : int

    Raises
    ------
    InputError
        If `target` is taken.
    """
    with new_folder(target) as complete:
        root = source.transformer()
        source.copy_to(complete, root.tensors().stored())
        inner = complete / root.path.relative_to(source.path)
        name = next((name for name in TRANSFORMER_SETTINGS if (inner / name).exists()), TRANSFORMER_SETTINGS[0])
        _update(inner / name, {"max_seq_length": max_seq_length})
        _write_pooling(complete, ModelFolder(complete), model)
        changes: dict[str, Any] = {
            "prompts": settings.prompts,
            "default_prompt_name": settings.default_prompt_name,
            "similarity_fn_name": settings.similarity_fn_name,
        }
        if settings.truncate_dim is not None or model.settings.truncate_dim is not None:
            changes["truncate_dim"] = settings.truncate_dim
        _update(complete / SENTENCE_SETTINGS, changes)


def _write_pooling(root: Path, folder: ModelFolder, model: SentenceModel) -> None:
    """Write how to pool, as all versions of sentence-transformers read it."""
    if not folder.has("modules.json"):
        entries = [
            {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (kind, path) in enumerate((("Transformer", ""), ("Pooling", "1_Pooling")))
        ]
        (root / "modules.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
    place = next(path for kind, path in folder.modules() if kind == "Pooling")
    modes = model.pooling.modes
    stored = json.loads((root / place / "config.json").read_text("utf-8")) if folder.has(f"{place}/config.json") else {}
    if len(modes) > 1 or stored.get(POOLING_MODES[modes[0]]) or stored.get("pooling_mode") == modes[0]:
        return  # as the folder says; several cannot be given otherwise
    (root / place).mkdir(exist_ok=True)
    config = {"word_embedding_dimension": model.texts.model.config.hidden_size}
    config |= {key: mode in modes for mode, key in POOLING_MODES.items()}
    config["include_prompt"] = model.pooling.include_prompt
    (root / place / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _update(file: Path, changes: dict[str, Any]) -> None:
    """Change keys of a JSON file, which need not be there yet."""
    values = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(values | changes, indent=2) + "\n", encoding="utf-8")
