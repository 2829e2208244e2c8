"""Models of the Hugging Face hub, through ``huggingface_hub``, which comes with ``tokenizers``.

Settings are fetched first and weights when they are asked for: a model that is not supported is refused before its
weights are. Nothing but the files that are read is fetched: no pickle, no code, no other format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import CheckpointError, InputError, shown
from ..log import debug

__all__ = ["Remote", "parse_name"]

NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([^\s@]+))?", re.ASCII)

TRUE = ("1", "ON", "YES", "TRUE")  # as the library reads its variables


@dataclass(frozen=True)
class Remote:
    """A model of the hub, or a folder in it.

    Attributes
    ----------
    repository : str
        "organisation/name".
    revision : str or None
        Branch, tag or commit; None for the main branch.
    folder : str
        The part of the repository that is meant, "" for the whole.
    token : str or bool, optional
        None for ``HF_TOKEN`` or the one of ``hf auth login``, False for none.
    cache_folder : str or path, optional
        None for the hub's own, which ``HF_HUB_CACHE`` and ``HF_HOME`` set.
    local_files_only : bool
        Ask nobody: what is in the cache, or an error. So does ``HF_HUB_OFFLINE=1``.
    """

    repository: str
    revision: str | None = None
    folder: str = ""
    token: str | bool | None = None
    cache_folder: str | os.PathLike[str] | None = None
    local_files_only: bool = False

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repository}{revision}"

    def inside(self, folder: str) -> Remote:
        """Return a folder of this one."""
        return replace(self, folder=f"{self.folder}/{folder}".strip("/"))

    def at(self, snapshot: Path) -> Remote:
        """Return the same, at the commit of a snapshot: later files are of the same commit."""
        return replace(self, revision=snapshot.name)

    def fetch(self, names: Sequence[str], quiet: bool = False) -> Path:
        """Bring files of the repository into the cache, those of `names` that it has.

        Parameters
        ----------
        names : sequence of str
            Inside `folder`; ``*`` stands for any characters.
        quiet : bool
            Show no progress.

        Returns
        -------
        Path
            The snapshot: the folder in the cache with this commit's files.

        Raises
        ------
        CheckpointError
            If there is no such model, it may not be read, or it cannot be reached and is not in the cache.
        """
        try:
            import huggingface_hub as hub
            from huggingface_hub import errors
        except ImportError:
            raise CheckpointError(
                f"{self}: expected the package huggingface_hub, it is not installed; pip install huggingface_hub, or "
                "name a model folder"
            ) from None
        patterns = [f"{self.folder}/{name}".lstrip("/") for name in names]
        options: dict[str, Any] = {"tqdm_class": _silent()} if quiet else {}
        cache = None if self.cache_folder is None else Path(self.cache_folder)
        endpoint = os.environ.get("HF_ENDPOINT") or None  # as it is now, not when the library was imported
        try:
            snapshot: str = hub.snapshot_download(
                self.repository, revision=self.revision, allow_patterns=patterns, cache_dir=cache,
                token=self.token, local_files_only=self._is_offline(), endpoint=endpoint, **options,
            )  # fmt: skip
        except Exception as error:  # of the hub, of the disk, or of whatever library speaks HTTP
            raise self._complaint(error, errors, str(cache or hub.constants.HF_HUB_CACHE)) from error
        debug("%s: %s in %s", self, ", ".join(names), snapshot)
        return Path(snapshot)

    def _is_offline(self) -> bool:
        variables = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        return self.local_files_only or any(os.environ.get(name, "").upper() in TRUE for name in variables)

    def _complaint(self, error: Exception, errors: ModuleType, cache: str) -> CheckpointError:
        """Say in one sentence what is wrong, and what to do."""
        login = "accept its conditions on its page" if isinstance(error, errors.GatedRepoError) else "check the name"
        login += ", and say who you are: HF_TOKEN=..., or hf auth login"
        reason = str(error).strip().split("\n")[0][:300]
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            text = f"expected a model that you may read, the hub says that access is restricted; {login}"
        elif isinstance(error, errors.RepositoryNotFoundError):
            text = f"expected a model folder here or a model of the hub, found neither (or it is private); {login}"
        elif isinstance(error, errors.RevisionNotFoundError):
            text = f"expected a revision of {self.repository}, found none of that name; leave @{self.revision} out, or "
            text += "name a branch, a tag or a commit of it"
        elif isinstance(error, errors.HFValidationError):
            text = f"expected organisation/name, found another form: {reason}"
        elif isinstance(error, errors.LocalEntryNotFoundError) and self._is_offline():
            text = f"expected it in the cache {cache}, for no network is to be used (HF_HUB_OFFLINE, local_files_only)"
            text += ", found it not there, or not whole; load it once with a network, or copy a folder that ufbert "
            text += "download --out has made"
        elif isinstance(error, errors.LocalEntryNotFoundError):
            text = "expected a model folder here, or an answer of the hub, could not reach it and found nothing in the "
            text += f"cache {cache}; check the spelling, the network and HF_ENDPOINT, or name a folder"
        elif isinstance(error, errors.HfHubHTTPError) and status in (401, 403):
            text = f"expected to be let in, the hub refused ({status}); {login}"
        elif isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            text = f"expected to write the cache {cache}, could not: {error.strerror}: {error.filename}; make room or "
            text += "rights, or set HF_HUB_CACHE"
        else:
            text = f"expected to fetch it from the hub, could not ({type(error).__name__}: {reason}); try again: what "
            text += f"is complete is kept in the cache {cache}"
        return CheckpointError(f"{self}: {text}")


def parse_name(name: str) -> Remote | None:
    """Take ``organisation/name`` or ``organisation/name@revision``; None if it is anything else, such as a path."""
    found = NAME.fullmatch(name)
    if found is None or ".." in found[1] or "--" in found[1] or found[1].endswith((".git", ".", "-")):
        return None
    return Remote(found[1], found[2])


def checked_options(remote: Remote) -> Remote:
    """Refuse options of a wrong type, before they come to the library.

    Raises
    ------
    InputError
        If one does not fit.
    """
    for name, types, wanted in (
        ("revision", (str, type(None)), "a branch, a tag or a commit"),
        ("token", (str, bool, type(None)), "a token, True, False or None"),
        ("cache_folder", (str, os.PathLike, type(None)), "a path"),
        ("local_files_only", (bool,), "True or False"),
    ):
        if not isinstance(getattr(remote, name), types):
            found = "something else" if name == "token" else shown(getattr(remote, name))  # a token is a secret
            raise InputError(f"{name}: expected {wanted}, got {found}")
    return remote


def _silent() -> type[Any]:
    """Return a progress bar that is not shown."""
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[misc]
        def __init__(self, *args: object, **kwargs: object) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **{key: value for key, value in kwargs.items() if key != "name"})

    return Silent
