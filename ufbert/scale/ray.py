"""Many machines by Ray: the parts of a job as its tasks, and a column of a Ray dataset embedded by a pool of actors.

The extra ``ray``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checks, isa
from ..dense import DTYPES
from ..errors import InputError
from .job import Job, Part
from .run import Runner
from .sinks import Results, arrow_columns, arrow_type
from .worker import Settings, Worker

if TYPE_CHECKING:
    import ray.data

__all__ = ["embed_dataset", "run_parts"]

RETRIES = 20
"""How often a part runs again whose worker or node died."""
_runners: dict[str, Runner] = {}  # of this process: a model is loaded once for all its parts


def run_parts(job: Job, parts: Sequence[Part], address: str, num_cpus: int | None = None) -> Iterator[dict[str, Any]]:
    """Run parts of a job on a Ray cluster, whose nodes share the folders of input, output and model.

    A part is a task. A task whose worker or node dies runs again elsewhere; its output appears when it is whole, under
    one name: so every row is there once, whatever dies.

    Parameters
    ----------
    job : Job
        Which has begun.
    parts : sequence of Part
    address : str
        Of the cluster, or "auto".
    num_cpus : int, optional
        CPUs and threads of a task; 1 by default.

    Yields
    ------
    dict
        The record of each part, as they finish.

    Raises
    ------
    InputError
        If Ray is not installed, no cluster answers, or a part is refused.
    """
    ray = _connect(address)
    cpus = num_cpus or 1
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if cpus > largest:
        raise InputError(f"--threads: expected at most the CPUs of a node, {largest:g}, got {cpus}")
    # An exception of ours is the same the next time; only what dies runs again.
    remote = ray.remote(num_cpus=cpus, max_retries=RETRIES)(_run_part)
    shared = ray.put(_anywhere(job))
    waiting = [remote.remote(shared, part.number, cpus) for part in parts]
    try:
        while waiting:
            done, waiting = ray.wait(waiting)
            for task in done:
                yield ray.get(task)
    except ray.exceptions.RayError as error:
        raise InputError(f"Ray: {getattr(error, 'cause', error)}") from None
    finally:
        for task in waiting:
            ray.cancel(task, force=True)


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise InputError("Ray is not installed; pip install 'ufbert[ray]'") from None
    if not ray.is_initialized():
        try:
            ray.init(address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(f"--ray: expected the address of a Ray cluster, got {address!r}: {error}") from None
    return ray


def _anywhere(job: Job) -> Job:
    """Name the files of a job so that processes in other folders find them."""
    inputs = tuple(file._replace(path=file.path.absolute()) for file in job.inputs)
    model = job.settings.model
    found = model if model is None or not os.path.exists(model) else os.path.abspath(model)
    return replace(job, inputs=inputs, output=Path(job.output).absolute(), settings=replace(job.settings, model=found))


def _run_part(job: Job, number: int, cpus: int) -> dict[str, Any]:
    """Run a part in a worker of Ray, unless it is finished already: by a node that died just after that."""
    part = job.parts[number]
    done = job.record(part)
    if done is not None:
        return done
    os.environ["UFBERT_NUM_THREADS"] = str(cpus)
    if isa.active_isa() != job.instruction_set:
        isa.use_isa(job.instruction_set)
    key = repr(job)
    if key not in _runners:
        _runners.clear()
        _runners[key] = Runner(job, Worker(job.settings))
    return _runners[key](part)


class _Actor:
    """A model in a process of Ray Data: tables in, the same tables with the results' columns out."""

    def __init__(self, settings: Settings, columns: tuple[str, ...], names: Mapping[str, str], cpus: int) -> None:
        os.environ["UFBERT_NUM_THREADS"] = str(cpus)
        self.worker, self.columns, self.names = Worker(settings), columns, names

    def __call__(self, table: Any) -> Any:
        texts = [table[name].to_pylist() for name in self.columns]
        rows = texts[0] if len(texts) == 1 else list(zip(*texts, strict=True))
        results: Results = self.worker(rows)
        for name, array in zip(results.columns, arrow_columns(results, len(rows)), strict=True):
            kind = arrow_type(name in self.worker.strings, self.worker.widths[name])
            table = table.append_column(self.names.get(name, name), array.cast(kind))
        return table


def embed_dataset(
    dataset: ray.data.Dataset,
    *,
    column: str = "text",
    model: str | None = None,
    output_column: str = "embedding",
    dtype: str = "float32",
    on_error: str = "fail",
    num_cpus: int = 1,
    concurrency: int | tuple[int, int] | None = None,
    batch_size: int = 4_096,
    **options: Any,
) -> ray.data.Dataset:
    """Add a column of embeddings to a Ray dataset, computed by a pool of actors that load the model once each.

    If ``checkpoint_config`` of Ray's `DataContext` is set before the dataset is made, Ray holds a CPU with the actor
    that leaves out rows which are done: one more CPU has to stay free.

    Parameters
    ----------
    dataset : ray.data.Dataset
    column : str
        Of the texts.
    model : str, optional
        As `SentenceEncoder` takes it; a folder has to be on every node.
    output_column : str
        A fixed-size list of float32, null where a row has no usable text.
    dtype : {"float32", "bfloat16", "int8"}
    on_error : {"fail", "null"}
        What a row without a usable text does: end the job, or give null.
    num_cpus : int
        CPUs, and threads, of an actor.
    concurrency : int or (int, int), optional
        Actors, or the least and the most of them; by default as many as the cluster's CPUs allow now, one CPU being
        left to read and write, and one to Ray's checkpoints if there are some: without them Ray would wait for ever.
    batch_size : int
        Rows that an actor is given at a time.
    **options
        Of `SentenceEncoder.encode`: ``normalize_embeddings``, ``truncate_dim``, ``prompt``, ``prompt_name``.

    Returns
    -------
    ray.data.Dataset
        Lazy, as Ray's are.

    Raises
    ------
    InputError
        If the actors would leave too few CPUs free, or an argument does not fit.
    """
    import ray
    from ray.data import ActorPoolStrategy

    checks.choice(dtype, "dtype", DTYPES)  # no "auto": nodes of other kinds would mix precisions in one column
    checks.choice(on_error, "on_error", ("fail", "null"))
    checks.integer(num_cpus, "num_cpus", 1)
    unknown = options.keys() - {"normalize_embeddings", "truncate_dim", "prompt", "prompt_name"}
    if unknown:
        raise InputError(f"embed_dataset: expected options of SentenceEncoder.encode, got {sorted(unknown)}")
    if not ray.is_initialized():
        ray.init()
    checkpoints = getattr(dataset.context, "checkpoint_config", None)
    filters = getattr(checkpoints, "checkpoint_actor_pool_min_size", 1) if checkpoints is not None else 0
    least, most = _actors(int(ray.cluster_resources().get("CPU", 0)), num_cpus, concurrency, filters)
    settings = Settings("embed", model, dtype, on_error=on_error, options=options)
    pool = ActorPoolStrategy(size=least) if least == most else ActorPoolStrategy(min_size=least, max_size=most)
    return dataset.map_batches(
        _Actor,
        fn_constructor_args=(settings, (column,), {"embedding": output_column}, num_cpus),
        compute=pool,
        batch_size=batch_size,
        batch_format="pyarrow",  # of a NumPy batch Ray would make a type that only Ray knows
        num_cpus=num_cpus,
    )


def _actors(cpus: int, num_cpus: int, concurrency: int | tuple[int, int] | None, filters: int = 0) -> tuple[int, int]:
    """Return the least and the most actors, which leave a CPU to Ray's own tasks and one to each of its filters.

    Ray holds the CPU of a filter of checkpointed rows as long as the dataset runs, and asks for it only when there is
    something to leave out: a job would run at first, and hang when it is begun again.
    """
    room = max((cpus - 1 - filters) // num_cpus, 0)
    if concurrency is None:
        least = most = max(room, 1)
    elif isinstance(concurrency, tuple):
        least, most = (checks.integer(value, "concurrency", 1) for value in concurrency)
    else:
        least = most = checks.integer(concurrency, "concurrency", 1)
    if least > room:
        free = (
            f"{1 + filters} have to stay free to read and write and for Ray's checkpoints"
            if filters
            else ("one has to stay free to read and write")
        )
        raise InputError(
            f"concurrency: expected at most {room} actors of {num_cpus} CPUs, because the cluster has {cpus} CPUs and "
            f"{free}, got {least}; use fewer or smaller ones, or more nodes"
        )
    return least, most
