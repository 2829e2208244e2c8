"""All thread policy: how many threads a kernel may use, and when fewer are enough."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from . import checks

__all__ = ["MAX_THREADS", "SERIAL_BELOW", "available_cpus", "get_num_threads", "threads_for"]

MAX_THREADS = 1_024
"""Upper limit."""

SERIAL_BELOW = 200_000
"""Multiply-adds of a tree walk that each further thread must be worth: 10 microseconds, what waking it costs."""

CGROUPS = Path("/sys/fs/cgroup")


def get_num_threads(num_threads: int | None = None) -> int:
    """Resolve a ``num_threads`` argument.

    Parameters
    ----------
    num_threads : int, optional
        Taken as it is. If None: ``UFBERT_NUM_THREADS``, else ``OMP_NUM_THREADS``, else `available_cpus`.

    Returns
    -------
    int
        At least 1, at most `MAX_THREADS`.

    Raises
    ------
    InputError
        If the argument or ``UFBERT_NUM_THREADS`` is not a positive integer.
    """
    if num_threads is not None:
        return _limited(num_threads, "num_threads")
    if value := os.environ.get("UFBERT_NUM_THREADS"):
        return _limited(_parsed(value), "the environment variable UFBERT_NUM_THREADS")
    # OpenMP allows a list, one figure for each nesting level, and ignores what it cannot read.
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if value.isdecimal() and int(value) > 0:
        return min(int(value), MAX_THREADS)
    return available_cpus()


def available_cpus() -> int:
    """Count the CPUs that this process may use: its affinity mask, cut by the quotas of its control groups.

    Returns
    -------
    int
        At least 1.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, affinity if quota is None else min(affinity, quota))


@cache
def _cgroup_quota() -> int | None:
    """Whole CPUs granted by the CPU quotas of this process's control group and of all above it; None without any.

    Read once: the files take 40 microseconds, and each call that is worth more threads asks.
    """
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for _, controllers, group in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "" or "cpu" in controllers.split(","):  # version 2, or version 1
            root = CGROUPS / ("cpu" if controllers else "")
            place = root / group.lstrip("/")
            quotas += [_quota(folder) for folder in (place, *place.parents) if folder.is_relative_to(root)]
    granted = [quota for quota in quotas if quota is not None]
    return max(1, round(min(granted))) if granted else None


def _quota(folder: Path) -> float | None:
    """CPUs that a control group may use at a time; None if it sets no limit."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cpus = int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, "max", or nonsense
        return None
    return cpus if cpus > 0 else None


def _parsed(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


def _limited(value: object, name: str) -> int:
    return min(checks.integer(value, name, 1, advice="set it to 1 or more, or leave it out"), MAX_THREADS)


def threads_for(work: int, num_threads: int | None) -> int:
    """Choose the threads of a kernel call: no more than have something to do for as long as waking them takes.

    Parameters
    ----------
    work : int
        Multiply-adds of a tree walk, or what costs as much.
    num_threads : int, optional
        Threads at most; None for `get_num_threads`.
    """
    if num_threads is not None:
        num_threads = get_num_threads(num_threads)
    most = 1 + work // SERIAL_BELOW
    if num_threads == 1 or most == 1:
        return 1
    return min(most, get_num_threads() if num_threads is None else num_threads)
