"""Files of texts to files of results, in parts that resume and shards that machines share. Extras: parquet, ray."""

from .job import PART_ROWS, Input, Job, Part, Shard, plan
from .run import Report, Runner
from .sinks import FORMATS
from .sources import Columns
from .worker import Settings, Worker

__all__ = [
    "FORMATS", "PART_ROWS", "Columns", "Input", "Job", "Part", "Report", "Runner", "Settings", "Shard", "Worker",
    "plan",
]  # fmt: skip
