"""Models for ``ufbert``, to use without a download."""

from pathlib import Path

__version__ = "0.2.0"
__all__ = ["DEFAULT", "names", "path"]

DEFAULT = "all-MiniLM-L6-v2-fff-30x7"
_ROOT = Path(__file__).parent


def names() -> list[str]:
    """Names of the models that are here."""
    return sorted(folder.name for folder in _ROOT.iterdir() if (folder / "config.json").is_file())


def path(name: str = DEFAULT) -> Path:
    """Folder of a model.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in names():
        raise ValueError(f"bundled model: expected one of {', '.join(names())}, got {name!r}")
    return _ROOT / name
