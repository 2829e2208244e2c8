"""Fine-tuning of an encoder to a classifier of a task: one recipe for all tasks, resumable. Needs the extra ``train``.

The data's path: `recipe` -> `command` (on `ufbert.train.run`), with `classifier` as the module and `vocabulary` for its
word embeddings.
"""

from .command import finetune
from .recipe import FinetuneRecipe

__all__ = ["FinetuneRecipe", "finetune"]
