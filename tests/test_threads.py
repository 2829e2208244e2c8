import os

import pytest

from ufbert import threads
from ufbert.errors import InputError


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("UFBERT_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_argument_then_environment_then_cpus(monkeypatch):
    assert threads.get_num_threads() == threads.available_cpus() >= 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert threads.get_num_threads() == 3
    monkeypatch.setenv("UFBERT_NUM_THREADS", "5")
    assert threads.get_num_threads() == 5
    assert threads.get_num_threads(7) == 7


def test_affinity_is_respected():
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everything)})
    try:
        assert threads.available_cpus() == 1
    finally:
        os.sched_setaffinity(0, everything)


def cgroups(monkeypatch, root, process, files):
    """Control groups of a process whose /proc/self/cgroup says `process`: files below /sys/fs/cgroup with texts."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    read_text = threads.Path.read_text
    fake = lambda self: process if str(self) == "/proc/self/cgroup" else read_text(self)  # noqa: E731
    monkeypatch.setattr(threads, "CGROUPS", root)
    monkeypatch.setattr(threads.Path, "read_text", fake)
    return threads._cgroup_quota.__wrapped__()


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 1),
        ({}, None),
        ({"cpu.max": "many"}, None),
        ({"cpu.max": "max 100000", "a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000", "c/cpu.max": "100000 100000"}, 3),
        ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "200000 100000"}, 2),
    ],
)
def test_the_smallest_quota_above_the_process_counts(monkeypatch, tmp_path, files, cpus):
    assert cgroups(monkeypatch, tmp_path, "0::/a/b\n", files) == cpus


@pytest.mark.parametrize(("quota", "cpus"), [("250000", 2), ("-1", None), ("0", None)])
def test_quotas_of_the_first_version(monkeypatch, tmp_path, quota, cpus):
    files = {"cpu/a/cpu.cfs_quota_us": quota, "cpu/a/cpu.cfs_period_us": "100000"}
    process = "12:memory:/m\n3:cpu,cpuacct:/a\n"
    assert cgroups(monkeypatch, tmp_path, process, files) == cpus


def test_without_control_groups(monkeypatch, tmp_path):
    assert cgroups(monkeypatch, tmp_path, "", {"cpu.max": "100000 100000"}) is None


@pytest.mark.parametrize(
    ("work", "asked", "expected"),
    [
        (threads.SERIAL_BELOW - 1, 8, 1),
        (threads.SERIAL_BELOW, 8, 8),
        (threads.SERIAL_BELOW, 1, 1),
        (threads.SERIAL_BELOW, None, 5),
        (10 * threads.SERIAL_BELOW, 10**9, threads.MAX_THREADS),
    ],
)
def test_a_kernel_call_has_more_threads_from_where_they_pay(monkeypatch, work, asked, expected):
    monkeypatch.setattr(threads, "_has_openmp", True)
    monkeypatch.setattr(threads, "_openmp_used", False)
    monkeypatch.setattr(threads, "_serial_only", False)
    monkeypatch.setenv("UFBERT_NUM_THREADS", "5")
    assert threads.threads_for(work, asked) == expected
    assert threads._openmp_used == (expected > 1)
    threads._serial_after_fork()
    assert threads._serial_only == (expected > 1)


def test_a_call_is_serial_after_a_fork_and_without_openmp(monkeypatch):
    monkeypatch.setattr(threads, "_has_openmp", True)
    monkeypatch.setattr(threads, "_serial_only", True)
    assert threads.threads_for(10**9, 4) == 1
    monkeypatch.setattr(threads, "_serial_only", False)
    monkeypatch.setattr(threads, "_has_openmp", False)
    assert threads.threads_for(10**9, 4) == 1


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many"])
def test_nonsense_is_refused(value):
    with pytest.raises(InputError, match="positive integer"):
        threads.get_num_threads(value)


def test_nonsense_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("UFBERT_NUM_THREADS", "all")
    with pytest.raises(InputError, match="UFBERT_NUM_THREADS"):
        threads.get_num_threads()
