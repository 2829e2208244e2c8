"""An encoder in several processes: the same bits, and an end in every case."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import write_sentence_model

import ufbert
from ufbert import InputError, UfbertError

TEXTS = [f"{'abcdefgh'[i % 8]} cat {i}" for i in range(100)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_sentence_model(tmp_path_factory.mktemp("pool") / "model")


@pytest.fixture(scope="module")
def encoder(folder):
    return ufbert.SentenceEncoder(folder)


def processes_of(pool):
    return [process.pid for process in pool._workers._processes.values()]


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_the_end(pids, seconds=60):
    end = time.monotonic() + seconds
    while any(map(is_alive, pids)):
        assert time.monotonic() < end, "a worker lives on"
        time.sleep(0.05)


@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_any_call_gives_the_same_bits(encoder, start_method):
    with encoder.start_multi_process_pool(["cpu", "cpu"], start_method=start_method) as pool:
        np.testing.assert_array_equal(encoder.encode(TEXTS, pool=pool), encoder.encode(TEXTS))
        for options in (
            {"chunk_size": 7, "normalize_embeddings": True},
            {"chunk_size": 1_000, "truncate_dim": 5},
            {"prompt": "query: ", "batch_size": 3},
            {"precision": "binary"},
        ):
            found = encoder.encode_multi_process(iter(TEXTS), pool, **options)
            options.pop("chunk_size", None)
            np.testing.assert_array_equal(found, encoder.encode(TEXTS, **options))
        assert encoder.encode([], pool=pool).shape == (0, 12)
        np.testing.assert_array_equal(encoder.encode("one", pool=pool), encoder.encode("one"))
        with pytest.raises(InputError, match="as number 30: 5"):
            encoder.encode([*TEXTS[:30], 5], pool=pool, chunk_size=8)
        long = [*TEXTS[:30], "a b " * 100]
        with pytest.raises(InputError, match="the first is number 30"):
            encoder.encode(long, pool=pool, chunk_size=8, on_overflow="error")
        with pytest.warns(UserWarning, match="the first is number 30"):
            counted = encoder.encode(long, pool=pool, chunk_size=8, on_overflow="warn", return_truncated=True)
        assert counted.truncated.nonzero()[0].tolist() == [30]
        running = processes_of(pool)
    wait_for_the_end(running)


def test_processes_for_one_call(encoder):
    np.testing.assert_array_equal(encoder.encode(TEXTS, processes=2), encoder.encode(TEXTS))


def test_a_killed_worker_raises_and_never_hangs(encoder):
    pool = encoder.start_multi_process_pool(processes=2)
    encoder.encode(TEXTS, pool=pool)
    running = processes_of(pool)

    def texts():
        yield from TEXTS
        os.kill(running[0], signal.SIGKILL)
        yield from TEXTS * 100

    with pytest.raises(UfbertError, match="expected every worker to live, one has died"):
        encoder.encode(texts(), pool=pool, chunk_size=10)
    wait_for_the_end(running)
    with pytest.raises(UfbertError, match="expected a pool that is open"):
        encoder.encode(TEXTS, pool=pool)
    encoder.stop_multi_process_pool(pool)


SCRIPT = """
import itertools, sys, ufbert
if __name__ == "__main__":
    encoder = ufbert.SentenceEncoder(sys.argv[1])
    pool = encoder.start_multi_process_pool(processes=2)
    encoder.encode(["a"] * 10, pool=pool)
    print(*[process.pid for process in pool._workers._processes.values()], flush=True)
    encoder.encode(("a cat" for _ in itertools.count()), pool=pool, chunk_size=10)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(folder, tmp_path, number):
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2 and all(map(is_alive, pids))
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: all of them
    else:
        process.kill()
    said = process.communicate(timeout=60)[1]
    wait_for_the_end(pids)
    if number == signal.SIGINT:
        assert process.returncode != 0 and said.rstrip().endswith("KeyboardInterrupt")


def test_a_script_without_a_guard_is_told_so(folder, tmp_path):
    code = f"import ufbert\nufbert.SentenceEncoder({str(folder)!r}).encode(['a'] * 10, processes=2)\n"
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and 'without `if __name__ == "__main__":`' in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "processes: expected a positive integer"),
        ({"processes": 2, "chunk_size": 0}, "chunk_size: expected a positive integer"),
        ({"pool": {"input": None}}, "pool: expected what start_multi_process_pool gave"),
    ],
)
def test_wrong_arguments_of_a_call(encoder, options, message):
    with pytest.raises(InputError, match=message):
        encoder.encode(TEXTS, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_devices": ["cuda:0"]}, "device: expected 'cpu'"),
        ({"target_devices": ["cpu"], "processes": 2}, "leave one out"),
        ({"start_method": "fork"}, "start_method: expected one of spawn, forkserver"),
        ({"num_threads": 0}, "num_threads: expected a positive integer"),
    ],
)
def test_wrong_arguments_of_a_pool(encoder, options, message):
    with pytest.raises(InputError, match=message):
        encoder.start_multi_process_pool(**options)
