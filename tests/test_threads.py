import os
import subprocess
import sys
import time

import numpy as np
import pytest

import ufbert
from ufbert import isa, threads
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
        (threads.SERIAL_BELOW, 8, 2),
        (3 * threads.SERIAL_BELOW, 8, 4),
        (10 * threads.SERIAL_BELOW, 8, 8),
        (threads.SERIAL_BELOW, 1, 1),
        (10 * threads.SERIAL_BELOW, None, 5),
        (10**9 * threads.SERIAL_BELOW, 10**9, threads.MAX_THREADS),
    ],
)
def test_each_thread_of_a_call_has_what_waking_it_costs(monkeypatch, work, asked, expected):
    monkeypatch.setenv("UFBERT_NUM_THREADS", "5")
    assert threads.threads_for(work, asked) == expected


TASKS = """
import os, sys, numpy as np
from ufbert import dense
before = len(os.listdir("/proc/self/task"))
layer = dense.Linear(np.ones((512, 512), "f4"), dtype="float32")
x = np.ones((400, 512), "f4")
def started():
    layer(x, num_threads=3)
    return len(os.listdir("/proc/self/task")) - before
parent = started()
child = os.fork()
if child == 0:
    os._exit(started())
print(parent, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), started())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the threads in Linux's /proc")
def test_threads_are_started_once_and_again_in_a_forked_child():
    if isa.dense_kernels is None:
        pytest.skip("no compiled kernels")
    command = [sys.executable, "-W", "ignore", "-c", TASKS]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "UFBERT_NUM_THREADS": "2"}
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["2", "2", "2"]


@pytest.mark.timing
def test_on_a_busy_machine_several_threads_are_no_slower_than_one(monkeypatch):
    """Three other processes want each CPU. Threads that spin at a barrier took five to ten times as long as one.

    `python bench/encoder.py busy` measures it; the limit here also holds where more wants the CPUs meanwhile.
    """
    if threads.available_cpus() < 2:
        pytest.skip("needs two CPUs")
    encoder = ufbert.SentenceEncoder("all-MiniLM-L6-v2")
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(3 * threads.available_cpus())]
    times = {"1": [], "2": []}
    try:
        for _ in range(40):
            for count, taken in times.items():
                monkeypatch.setenv("UFBERT_NUM_THREADS", count)
                start = time.perf_counter()
                encoder.encode("How do I run a BERT encoder on a CPU without PyTorch?")
                taken.append(time.perf_counter() - start)
    finally:
        for other in others:
            other.kill()
    assert np.median(times["2"]) < 3 * np.median(times["1"])


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many"])
def test_nonsense_is_refused(value):
    with pytest.raises(InputError, match="positive integer"):
        threads.get_num_threads(value)


def test_nonsense_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("UFBERT_NUM_THREADS", "all")
    with pytest.raises(InputError, match="UFBERT_NUM_THREADS"):
        threads.get_num_threads()
