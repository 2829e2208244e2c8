"""MTEB: an encoder that its tasks score.

>>> import mteb
>>> from ufbert.integrations.mteb import UfbertModel
>>> results = mteb.evaluate(UfbertModel(), mteb.get_tasks(tasks=["STS12"]))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint.folder import ModelFolder
from ..checkpoint.names import default_folder
from ..errors import InputError
from ..tasks import SentenceEncoder
from .adapter import Adapter, missing

try:
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ScoringFunction

    if TYPE_CHECKING:
        from mteb.abstasks.task_metadata import TaskMetadata
        from mteb.types import PromptType
except ImportError as error:
    raise missing("mteb", error) from None

__all__ = ["UfbertModel"]

_SCORING = {"cosine": ScoringFunction.COSINE, "dot": ScoringFunction.DOT_PRODUCT}


class UfbertModel(AbsEncoder):  # type: ignore[misc]
    """An encoder for ``mteb.evaluate``.

    MTEB keeps results by a model's name and revision. These are "ufbert/" with the folder's name, or the name on the
    hub; and the precision with a digest of the weights.

    Parameters
    ----------
    model : str, optional
        A model folder, the name of a bundled model, or ``organisation/name`` of the hub; None for the bundled default.
    revision : str, optional
        Instead of the digest.
    device : None or "cpu"
        MTEB gives it; there is only the CPU.
    **settings
        Others of `Adapter`, such as ``dtype``.

    Raises
    ------
    InputError
        If `device` is another.
    """

    def __init__(
        self, model: str | None = None, revision: str | None = None, *, device: str | None = None, **settings: Any
    ) -> None:
        if device not in (None, "cpu"):
            raise InputError(f'device: expected None or "cpu", got {device!r}; ufbert runs on CPUs')
        folder = ModelFolder(default_folder() if model is None else model)
        self.adapter = Adapter(model, **settings)
        self.model: SentenceEncoder = self.adapter.encoder
        self.model_prompts = self.model.prompts
        overwrites = {
            "name": folder.remote.repository if folder.remote else f"ufbert/{folder.path.resolve().name}",
            "revision": revision or f"{self.adapter.dtype}-{folder.transformer().sha256()[:12]}",
            "framework": ["NumPy"],
            "embed_dim": self.model.dimension,
            "max_tokens": self.model.max_seq_length,
            "similarity_fn_name": _SCORING.get(self.model.similarity_fn_name),  # None: the model is asked
            "use_instructions": any(self.model.prompts.values()),
        }
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=overwrites)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Sequence[str]]],
        *,
        task_metadata: TaskMetadata,
        prompt_type: PromptType | None = None,
        **_: object,
    ) -> NDArray[np.float32]:
        """Embed a task's texts, with the model's prompt for the task or for its kind of text: (N, dim)."""
        texts = (text for batch in inputs for text in batch["text"])
        return self.adapter.texts(texts, self.get_prompt_name(task_metadata, prompt_type))
