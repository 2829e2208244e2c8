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


@pytest.mark.parametrize(("text", "cpus"), [("150000 100000", 2), ("max 100000", None), ("50000 100000", 1)])
def test_cgroup_quota(monkeypatch, text, cpus):
    monkeypatch.setattr(threads.Path, "read_text", lambda self: text)
    assert threads._cgroup_quota.__wrapped__() == cpus


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many"])
def test_nonsense_is_refused(value):
    with pytest.raises(InputError, match="positive integer"):
        threads.get_num_threads(value)


def test_nonsense_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("UFBERT_NUM_THREADS", "all")
    with pytest.raises(InputError, match="UFBERT_NUM_THREADS"):
        threads.get_num_threads()
