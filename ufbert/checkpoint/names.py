"""What a model may be called: an existing folder, an installed model, or ``organisation/name`` of the hub.

Installed models are those of ``ufbert-weights`` and of any package with entry points in the group `GROUP`: the name of
an entry point is the model's, its value the package in which the model's folder lies under that name.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, InputError, shown
from .hub import Remote, checked_options, parse_name

__all__ = ["GROUP", "bundled", "default_folder", "find_remote"]

GROUP = "ufbert.models"

ORGANISATION = "sentence-transformers/"  # of which the bundled models are


def bundled(name: object) -> Path | None:
    """Find an installed model by its name, those of ``ufbert-weights`` with or without their organisation.

    None if it is no such name. An existing folder of that name comes first.

    Raises
    ------
    CheckpointError
        If a package names the model and does not have it, or several packages name it.
    """
    if not isinstance(name, str) or "\0" in name or os.path.lexists(name):
        return None
    bare = name.removeprefix(ORGANISATION)
    if Path(bare).name != bare:
        return None
    if importlib.util.find_spec("ufbert_weights") is not None:  # without a look at every package's entry points
        import ufbert_weights

        if bare in ufbert_weights.names():
            found: Path = ufbert_weights.path(bare)
            return found
    return _shipped(bare)


def _shipped(name: str) -> Path | None:
    from importlib import metadata  # slow to import

    packages = sorted({point.value for point in metadata.entry_points(group=GROUP, name=name)})
    if not packages:
        return None
    if len(packages) > 1:
        raise CheckpointError(
            f"model {name}: expected one package that has it, found {', '.join(packages)}; uninstall all but one"
        )
    try:
        spec = importlib.util.find_spec(packages[0])
    except (ImportError, ValueError):
        spec = None
    folders = [Path(place, name) for place in (spec.submodule_search_locations if spec else None) or ()]
    for folder in folders:
        if (folder / "config.json").is_file():
            return folder
    raise CheckpointError(
        f"model {name}: expected its folder, with a config.json, in the package {packages[0]}, found none; "
        "install that package anew"
    )


def default_folder(name: str | None = None) -> Path:
    """Return the bundled model of a name, or the default one.

    Raises
    ------
    CheckpointError
        If the package is not installed, or has no such model.
    """
    if importlib.util.find_spec("ufbert_weights") is None:
        raise CheckpointError(
            "bundled model: expected the package ufbert-weights, it is not installed; pip install ufbert-weights "
            "(from a checkout: pip install ./weights), or name a model folder or a model of the hub"
        )
    import ufbert_weights

    try:
        found: Path = ufbert_weights.path(name) if name else ufbert_weights.path()
        return found
    except ValueError as error:  # the package is of another version
        raise CheckpointError(f"{error}; update ufbert-weights, or name a model folder") from None


def find_remote(name: object, **options: Any) -> Remote | None:
    """Take a name as that of a model of the hub; None where something of that name is on the disk, or it is a path.

    Parameters
    ----------
    name : object
        Only a str can be such a name; a path is a path.
    options
        Of `Remote`: ``revision``, ``token``, ...

    Raises
    ------
    InputError
        If an option does not fit.
    """
    if not isinstance(name, str) or "\0" in name or os.path.lexists(name):
        return None
    remote = parse_name(name)
    if remote is None:
        return None
    if options.get("revision") is None:
        options["revision"] = remote.revision
    elif remote.revision not in (None, options["revision"]):
        raise InputError(f"revision: expected {remote.revision}, as the name says, got {shown(options['revision'])}")
    return checked_options(replace(remote, **options))
