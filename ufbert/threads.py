"""How many threads a kernel may use."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from .errors import InputError

__all__ = ["MAX_THREADS", "available_cpus", "get_num_threads"]

MAX_THREADS = 1_024
"""More are never started: OpenMP ends the process where the system refuses it a thread."""


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
        return _positive(num_threads, "num_threads")
    if value := os.environ.get("UFBERT_NUM_THREADS"):
        return _positive(value, "the environment variable UFBERT_NUM_THREADS")
    # OpenMP allows a list, one figure for each nesting level, and ignores what it cannot read.
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if value.isdecimal() and int(value) > 0:
        return min(int(value), MAX_THREADS)
    return available_cpus()


def available_cpus() -> int:
    """Count the CPUs that this process may use: its affinity mask, cut by the cgroup's quota.

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
    """Whole CPUs granted by the container's CPU quota (cgroup v2, then v1); None where there is none.

    Read once: the files take 40 microseconds, and every kernel's call asks.
    """
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota == "max":
            return None
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return max(1, round(cpus)) if cpus > 0 else None


def _positive(value: object, name: str) -> int:
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(value, (bool, float)):
        raise InputError(f"{name}: expected a positive integer, got {value!r}; set it to 1 or more, or leave it out")
    return min(number, MAX_THREADS)
