"""What must not happen: access outside the arrays, disturbance between threads, deadlock after fork, leaks."""

import ctypes
import mmap
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from ufbert import cmm, testing

PROT_NONE = 0


class Guarded:
    """Arrays that end, or begin, at a page that must not be touched: one byte too far ends the process."""

    def __init__(self):
        self.mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        self.maps = []

    def copy(self, array, at_end):
        page = mmap.PAGESIZE
        pages = max(1, -(-array.nbytes // page))
        memory = mmap.mmap(-1, (pages + 2) * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for guard in (base, base + (pages + 1) * page):
            assert self.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), PROT_NONE) == 0
        offset = (pages + 1) * page - array.nbytes if at_end else page
        guarded = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
        guarded[...] = array
        self.maps.append(memory)
        return guarded


@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("width", [1, 5, 16, 31, 33, 64, 95, 97, 768])
def test_guard_pages(isa, width, at_end):
    from ufbert import _cmm

    guarded = Guarded()
    case = testing.make_case(19, 2, 3, width, width, seed=width)
    arrays = [guarded.copy(array, at_end) for array in case.arrays]
    outputs = (np.zeros((19, width), "f4"), np.zeros((19, 2, 4), "i4"), np.zeros((19, 2, 4), "f4"))
    y, path, scores = (guarded.copy(array, at_end) for array in outputs)
    _cmm.fff_forward(*arrays, 3, 0, 1, y, path, scores)
    np.testing.assert_array_equal(y, cmm.fff_forward(*case.arrays, 3))
    for dtype in ("float32", "bfloat16", "int8"):
        cmm.PackedFFF(*arrays[1:], 3, weight_dtype=dtype)(arrays[0], out=y)
    gradients = [guarded.copy(np.zeros_like(array), at_end) for array in case.arrays]
    dy = guarded.copy(outputs[0], at_end)
    x, *weights = arrays
    _cmm.fff_backward(dy, x, *weights, 3, path, scores, 0, 1, *gradients)
    decisions = (np.full((19, 2), 1, "i4"), np.ones((2, 15), "f4"), np.ones(19, "f4"))
    decisions = [guarded.copy(array, at_end) for array in decisions]
    _cmm.fff_backward(dy, x, *weights, 3, path, scores, 0, 1, *gradients, *decisions)


@pytest.mark.parametrize("width", [1, 31, 33, 97, 384])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_nothing_is_written_beside_out(isa, width, num_threads):
    case = testing.make_case(200, 1, 4, 40, width)
    canary = np.float32(-123.25)
    memory = np.full(200 * width + 64, canary, "f4")
    for start in (16, 17):
        memory[:] = canary
        out = memory[start : start + 200 * width].reshape(200, width)
        for dtype in ("float32", "bfloat16", "int8"):
            cmm.PackedFFF(*case.arrays[1:], 4, weight_dtype=dtype)(case.x, num_threads=num_threads, out=out)
            assert (memory[:start] == canary).all() and (memory[start + out.size :] == canary).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_inputs_that_are_no_numbers(isa, value):
    case = testing.make_case(300, 2, 6, 33, 20)
    case.x[::2] = value
    y, path = cmm.fff_forward(*case.arrays, 6, return_path=True)
    assert path.min() >= 0 and path.max() < 127
    expected = cmm.fff_forward(case.x[1::2], *case.arrays[1:], 6)
    np.testing.assert_array_equal(y[1::2], expected)


def test_eight_python_threads_at_once(isa):
    case = testing.make_case(400, 1, 7, 64, 64)
    layer = cmm.PackedFFF(*case.arrays[1:], 7, weight_dtype="bfloat16")
    expected, plain = layer(case.x), cmm.fff_forward(*case.arrays, 7)
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(25):
            start = int(rng.integers(0, 300))
            part = slice(start, start + int(rng.integers(1, 100)))
            results = (
                layer(case.x[part], num_threads=2),
                cmm.fff_forward(case.x[part], *case.arrays[1:], 7, num_threads=2),
            )
            if not (np.array_equal(results[0], expected[part]) and np.array_equal(results[1], plain[part])):
                failures.append(part)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    assert not failures


FORK = """
import os, numpy as np
from ufbert import cmm, testing
case = testing.make_case(2000, 1, 6, 64, 64)
expected = cmm.fff_forward(*case.arrays, 6, num_threads=2)
child = os.fork()
if child == 0:
    again = cmm.fff_forward(*case.arrays, 6, num_threads=2)
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(0 if np.array_equal(cmm.fff_forward(*case.arrays, 6, num_threads=2), expected) else 2)
    same = np.array_equal(again, expected) and os.waitpid(grandchild, 0)[1] == 0
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(cmm.fff_forward(*case.arrays, 6, num_threads=2), expected)
"""


def test_fork_after_use():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=60)


LEAK = """
import numpy as np
from ufbert import cmm, testing
case = testing.make_case(64, 1, 4, 96, 96)

def calls(n):
    for _ in range(n):
        layer = cmm.PackedFFF(*case.arrays[1:], 4, weight_dtype="bfloat16")
        y, path, scores = cmm.fff_forward(*case.arrays, 4, num_threads=2, return_path=True, return_scores=True)
        layer(case.x, num_threads=2)
        cmm.fff_backward(y, *case.arrays, 4, path, scores)
        cmm.fff_backward(y, *case.arrays, 4, path, scores, tried=path[:, :, 0])

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

calls(300)
before = resident()
calls(3000)
grown = resident() - before
assert grown < 2_000_000, f"{grown} bytes more after 3000 calls"
"""


@pytest.mark.memory
def test_thousands_of_calls_leak_nothing():
    assert os.path.exists("/proc/self/statm"), "this test reads Linux's /proc"
    subprocess.run([sys.executable, "-c", LEAK], check=True, timeout=120)


@pytest.mark.memory
def test_zeros_of_the_gradients_are_not_touched():
    """A layer of 50 MB and one token: only the visited rows' pages become resident."""
    code = """
import numpy as np
from ufbert import cmm
n, width = 2**13 - 1, 768
w_in, b_in, w_out = np.zeros((1, n, width), "f4"), np.zeros((1, n), "f4"), np.zeros((1, n, width), "f4")
x = np.ones((1, width), "f4")
_, path, scores = cmm.fff_forward(x, w_in, b_in, w_out, 12, return_path=True, return_scores=True)
resident = lambda: int(open("/proc/self/smaps_rollup").read().split("Rss:")[1].split()[0]) * 1024
before = resident()
gradients = cmm.fff_backward(np.ones((1, width), "f4"), x, w_in, b_in, w_out, 12, path, scores)
print(resident() - before)
"""
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    huge_pages = 2 * 13 * (2 << 20)  # NumPy asks for huge pages: at most one for each visited row
    assert int(result.stdout) < huge_pages
