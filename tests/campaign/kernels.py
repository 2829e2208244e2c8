"""Random layers on every instruction set against `ufbert.reference`, with arrays that end at a forbidden page."""

import ctypes
import mmap
from dataclasses import replace

import numpy as np
from mutate import generator
from watch import Fault

from ufbert import cmm, dense, isa, reference, testing

WIDTHS = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 96, 97, 128, 384, 385]
TOKENS = [0, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64, 65, 130, 300]
PAGE = mmap.PAGESIZE
_mprotect = ctypes.CDLL(None, use_errno=True).mprotect
_mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Guarded:
    """Arrays whose last byte is the last one before a page that must not be touched."""

    def __init__(self):
        self.maps = {}

    def __call__(self, array):
        """A copy of `array` in such a place; places are used again and again."""
        array = np.ascontiguousarray(array)
        pages = -(-array.nbytes // PAGE)
        free = self.maps.setdefault(pages, [])
        region = free.pop() if free else self._region(pages)
        start = pages * PAGE - array.nbytes
        result = np.frombuffer(region, array.dtype, array.size, start).reshape(array.shape)
        result[...] = array
        self.used.append((pages, region))
        return result

    def __enter__(self):
        self.used = []
        return self

    def __exit__(self, *_):
        for pages, region in self.used:
            self.maps[pages].append(region)

    @staticmethod
    def _region(pages):
        region = mmap.mmap(-1, (pages + 1) * PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(region))
        if _mprotect(address + pages * PAGE, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
        return region


class Kernels:
    """Cases on layers of trees and on linear layers."""

    hang = 20.0

    def __init__(self):
        self.names, self.guard = isa.supported_isas(), Guarded()
        self.tokens = 0

    def __call__(self, seed, number, acts):
        rng = generator(seed, number)
        isa.use_isa(rng.choice(self.names))
        with self.guard, np.errstate(all="ignore"):
            rng.choice([self.trees, self.trees, self.packed, self.linear])(rng)

    def case(self, rng):
        """A layer of trees; small more often than large."""
        width, out, trees = rng.choice(WIDTHS), rng.choice(WIDTHS), rng.choice([1, 1, 2, 3, 8])
        deepest = 0
        while deepest < 10 and trees * 2 ** (deepest + 2) * (width + out) < 2**15:
            deepest += 1
        kind = rng.choice(testing.KINDS)
        activation = rng.choice(list(reference.ACTIVATIONS))
        return testing.make_case(
            rng.choice(TOKENS), trees, rng.randint(0, deepest), width, out, activation, kind, rng.randrange(2**32)
        )

    def trees(self, rng):
        """Plain arrays."""
        case = self.case(rng)
        case = replace(case, **{name: self.guard(getattr(case, name)) for name in ("x", "w_in", "b_in", "w_out")})
        y, path = cmm.fff_forward(
            *case.arrays, case.depth, return_path=True, activation=case.activation, num_threads=rng.choice([1, 2, 3])
        )
        testing.assert_fff_close(y, path, *case.arrays, case.depth, case.activation)

    def packed(self, rng):
        """Packed weights: the same bits as a call of each half of the tokens, whatever the dtype of the weights."""
        case = self.case(rng)
        dtype = rng.choice(["float32", "bfloat16", "int8"])
        try:
            layer = cmm.PackedFFF(
                case.w_in, case.b_in, case.w_out, case.depth, weight_dtype=dtype, activation=case.activation
            )
        except ValueError:
            if case.kind == "nonfinite" and dtype == "int8":
                return
            raise
        x = self.guard(case.x)
        y, path = layer(x, return_path=True, num_threads=rng.choice([1, 2]))
        cut = rng.randint(0, len(x))
        parts = [
            layer(self.guard(part), return_path=True, num_threads=rng.choice([1, 2])) for part in (x[:cut], x[cut:])
        ]
        if not _same(y, np.concatenate([part[0] for part in parts])) or not np.array_equal(
            path, np.concatenate([part[1] for part in parts])
        ):
            raise Fault(f"{isa.active_isa()}: {case!r} {dtype}: other bits in two calls at {cut}")
        if dtype == "float32":
            testing.assert_fff_close(y, path, *case.arrays, case.depth, case.activation)

    def linear(self, rng):
        """A linear layer against float64, and the same bits in two calls."""
        width, out = rng.choice(WIDTHS), rng.choice(WIDTHS)
        draw = np.random.default_rng(rng.randrange(2**32))
        w, b = draw.standard_normal((out, width), np.float32), draw.standard_normal(out, np.float32)
        x = self.guard(draw.standard_normal((rng.choice(TOKENS), width), np.float32) * rng.choice([1e-3, 1.0, 50.0]))
        dtype = rng.choice(dense.DTYPES)
        layer = dense.Linear(w, b, dtype=dtype).pack(dtype)
        y, cut = layer(x), rng.randint(0, len(x))
        if not _same(y, np.concatenate([layer(self.guard(x[:cut])), layer(self.guard(x[cut:]))])):
            raise Fault(f"{isa.active_isa()}: linear {x.shape} -> {out} {dtype}: other bits in two calls at {cut}")
        exact = x.astype(np.float64) @ w.T.astype(np.float64) + b
        size_x, size_w = np.abs(x).astype(np.float64), np.abs(w).astype(np.float64)
        limit = {"float32": 1e-5, "bfloat16": 2e-2, "int8": 1e-5}[dtype] * (size_x @ size_w.T + np.abs(b)) + 1e-30
        if dtype == "int8":  # a step is the largest of a row over 127
            steps_x, steps_w = size_x.max(axis=1, keepdims=True) / 127, size_w.max(axis=1) / 127
            limit += (
                steps_x * size_w.sum(axis=1) + size_x.sum(axis=1, keepdims=True) * steps_w + width * steps_x * steps_w
            )
        if (np.abs(y - exact) > limit).any():
            raise Fault(f"{isa.active_isa()}: linear {x.shape} -> {out} {dtype}: error {np.abs(y - exact).max()}")


def _same(a, b):
    return np.array_equal(a.view(np.int32) | (np.isnan(a) * -1), b.view(np.int32) | (np.isnan(b) * -1))
