"""Fetch a model of the hub, whole, or copy it out of the cache."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ..errors import InputError, shown
from .files import ARTIFACT
from .folder import ModelFolder
from .names import bundled, find_remote
from .writing import checked_place, new_folder

__all__ = ["download"]


def download(
    name: str,
    out: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    subfolder: str = "",
    token: str | bool | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    pickled: bool = False,
) -> Path:
    """Fetch what ufbert needs of a model of the Hugging Face hub: settings, tokenizer, safetensors.

    Parameters
    ----------
    name : str
        ``organisation/name`` or ``organisation/name@revision``; or the name of a bundled model.
    out : str or path, optional
        A new folder for a copy that stands alone, without links: for a container or a machine without a network.
    revision : str, optional
        A branch, a tag or a commit.
    subfolder : str
        The folder of the repository that the model is in.
    token : str or bool, optional
        None for ``HF_TOKEN``, or what ``hf auth login`` has stored.
    cache_folder : str or path, optional
        None for the hub's own, as ``HF_HUB_CACHE`` or ``HF_HOME`` say.
    local_files_only : bool
        Use no network.
    pickled : bool
        Also fetch ``pytorch_model.bin`` where there is nothing else; `ufbert.convert` reads it.

    Returns
    -------
    Path
        `out`, else the folder in the cache.

    Raises
    ------
    CheckpointError
        If there is no such model, the architecture is not supported (before weights are fetched), or something could
        not be fetched.
    InputError
        If an argument does not fit.
    """
    if out is not None:
        checked_place(out)
    if not isinstance(subfolder, str) or subfolder.startswith("/") or ".." in subfolder.split("/"):
        raise InputError(f"subfolder: expected a path inside the repository, got {shown(subfolder)}")
    found = bundled(name) if revision is None else None
    if found is None:
        remote = find_remote(
            name, revision=revision, token=token, cache_folder=cache_folder, local_files_only=local_files_only
        )
        if remote is None:
            raise InputError(
                f"name: expected organisation/name of a model of the hub, got {shown(name)}"
                + ("; it is here already" if isinstance(name, str) and os.path.lexists(name) else "")
            )
        folder = ModelFolder.of_hub(remote.inside(subfolder), pickled)
    else:
        folder = ModelFolder(found)
    folder.transformer().config(encoder_only=True)
    folder.complete()
    if out is None:
        return folder.path
    import shutil  # slow to import, like lzma and bz2, which it brings

    kept = (".json", ".txt", ".safetensors", ".md", ARTIFACT, *((".bin",) if pickled else ()), "LICENSE")
    with new_folder(out) as complete:
        shutil.copytree(folder.path, complete, dirs_exist_ok=True, ignore=partial(_others, kept))
    return Path(out)


def _others(kept: tuple[str, ...], place: str, names: list[str]) -> list[str]:
    """Name what another program may have brought into the cache: other formats, code."""
    return [
        name
        for name in names
        if name in ("onnx", "openvino") or not (Path(place, name).is_dir() or name.endswith(kept))
    ]
