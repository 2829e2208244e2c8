"""Models of the package ``ufbert-weights``."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from ..errors import CheckpointError

__all__ = ["model_folder"]


def model_folder(folder: str | os.PathLike[str] | None, default: str | None = None) -> str | os.PathLike[str]:
    """Find a model: a folder as it is, else the bundled model of that name.

    Parameters
    ----------
    folder : str or path, optional
        None for the bundled model that is called `default`.
    default : str, optional
        None for the package's own default.

    Raises
    ------
    CheckpointError
        If a bundled model is wanted and the package is not installed, or has no such model.
    """
    installed = importlib.util.find_spec("ufbert_weights") is not None
    if folder is not None:
        if not installed or not isinstance(folder, str) or Path(folder).name != folder or os.path.lexists(folder):
            return folder
        import ufbert_weights

        return ufbert_weights.path(folder) if folder in ufbert_weights.names() else folder
    if not installed:
        raise CheckpointError(
            "bundled model: expected the package ufbert-weights, it is not installed; pip install ufbert-weights "
            "(from a checkout: pip install ./weights), or name a model folder"
        )
    import ufbert_weights

    try:
        found: Path = ufbert_weights.path(default) if default else ufbert_weights.path()
        return found
    except ValueError as error:  # the package is of another version
        raise CheckpointError(f"{error}; update ufbert-weights, or name a model folder") from None
