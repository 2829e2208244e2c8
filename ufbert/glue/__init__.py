"""GLUE: read its files, score and submit a model's predictions, probe encoders.

Needs the extra ``glue`` (SciPy, scikit-learn). Fine-tuning is in `ufbert.train.finetune`.
"""

from .data import load_task, read_split, read_train, tasks_in
from .evaluate import Score, evaluate, predict
from .models import find_classifiers
from .probe import probe
from .report import averages, render_scores, summarise
from .submission import write_predictions
from .tasks import GLUE, Split, Task, find_task

__all__ = [
    "GLUE",
    "Score",
    "Split",
    "Task",
    "averages",
    "evaluate",
    "find_classifiers",
    "find_task",
    "load_task",
    "predict",
    "probe",
    "read_split",
    "read_train",
    "render_scores",
    "summarise",
    "tasks_in",
    "write_predictions",
]
