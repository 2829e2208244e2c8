"""What a model may be called: an existing folder, a bundled model, or ``organisation/name`` of the hub."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, InputError, shown
from .hub import Remote, checked_options, parse_name

__all__ = ["bundled", "default_folder", "find_remote"]

ORGANISATION = "sentence-transformers/"  # of which the bundled models are


def bundled(name: object) -> Path | None:
    """Find a bundled model by its name, with or without its organisation; None if it is no such name.

    An existing folder of that name comes first.
    """
    if not isinstance(name, str) or importlib.util.find_spec("ufbert_weights") is None:
        return None
    bare = name.removeprefix(ORGANISATION)
    if Path(bare).name != bare or "\0" in name or os.path.lexists(name):
        return None
    import ufbert_weights

    return ufbert_weights.path(bare) if bare in ufbert_weights.names() else None


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
