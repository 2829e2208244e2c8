"""Check the installation: kernels, threads, settings, bundled models, speed.

Each line says what was looked at and what was found: "ok", "note" (it works,
but something costs time) or "FAULT". The exit code is 1 where there is a fault.
The last figure can be compared with the tables of the documentation.

  ufbert doctor
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from statistics import median

import numpy as np

from .. import isa, reference, testing, threads
from ..checkpoint.writing import digest
from ..cmm import PackedFFF, fff_forward
from ..info import info

__all__ = ["add_arguments", "run"]

Finding = tuple[str, str, str]  # what was looked at; "ok", "note" or "FAULT"; what was found
SPINNING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
SLOW_BLAS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
CASES = 40  # random layers an instruction set and kind
TEXT = "How do plants make food?"
MODEL = "all-MiniLM-L6-v2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--no-speed", action="store_true", help="leave out the measurement")


def run(arguments: argparse.Namespace) -> int:
    """Print every finding; return 1 if one is a fault."""
    faults = 0
    for what, state, found in findings(not arguments.no_speed):
        print(f"{state:<6}{what:<18}{found}", flush=True)
        faults += state == "FAULT"
    return int(faults > 0)


def findings(with_speed: bool) -> Iterator[Finding]:
    """Look at one thing after another."""
    yield from _build()
    yield from _threads()
    yield from _settings()
    yield from _kernels()
    yield from _weights()
    if with_speed and util.find_spec("ufbert_weights"):
        yield from _speed()


def _build() -> Iterator[Finding]:
    facts = info()
    if facts["kernel"] == "numpy":
        yield "kernels", "note", "none are compiled, NumPy computes; install where there is a C compiler"
    else:
        yield "instruction set", "ok", f"{facts['instruction_set']} of {', '.join(facts['instruction_sets'])}"
        best = facts["instruction_sets"][-1]
        if facts["instruction_set"] != best:
            yield "instruction set", "note", f"UFBERT_ISA forces it; without that it would be {best}"
    yield "libraries", "ok", ", ".join(f"{name} {facts[name]}" for name in ("python", "numpy", "tokenizers", "blas"))


def _threads() -> Iterator[Finding]:
    count, cpus, all_cpus = threads.get_num_threads(), threads.available_cpus(), os.cpu_count() or 1
    yield "threads", "ok", f"{count}, for the process may use {cpus} of the machine's {all_cpus} CPUs"
    if count > cpus:
        yield "threads", "note", f"{count} on {cpus} CPUs: calls wait for each other; set UFBERT_NUM_THREADS={cpus}"
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > all_cpus + 0.5:
        yield "load", "note", f"{load:.1f} on {all_cpus} CPUs: times of today are those of a busy machine"


def _settings() -> Iterator[Finding]:
    for name in SPINNING:
        if value := os.environ.get(name):
            yield name, "note", f"{value!r} is for other libraries; the kernels here do not read it"
    for name in SLOW_BLAS:
        if value := os.environ.get(name):
            yield name, "note", f"{value!r} makes NumPy's BLAS slower on many CPUs; unset it"


def _kernels() -> Iterator[Finding]:
    """Random layers on each instruction set, against plain NumPy."""
    before = isa.active_isa()
    for name in isa.supported_isas():
        if name != "numpy":
            isa.use_isa(name)
        try:
            for seed in range(CASES):
                _check_layer(seed)
            yield "self test", "ok", f"{name}: {2 * CASES} random layers agree with ufbert.reference"
        except AssertionError as error:
            yield "self test", "FAULT", f"{name}: {str(error).splitlines()[0]}; use another one with UFBERT_ISA"
    if before != "numpy":
        isa.use_isa(before)


def _check_layer(seed: int) -> None:
    draw = np.random.default_rng(seed)
    activations = list(reference.ACTIVATIONS)
    case = testing.make_case(
        tokens=int(draw.integers(1, 80)),
        trees=int(draw.integers(1, 4)),
        depth=int(draw.integers(0, 8)),
        width_in=int(draw.integers(1, 100)),
        width_out=int(draw.integers(1, 100)),
        activation=activations[seed % len(activations)],
        kind=testing.KINDS[seed % len(testing.KINDS)],
        seed=seed,
    )
    y, path = fff_forward(*case.arrays, case.depth, return_path=True, activation=case.activation)
    testing.assert_fff_close(y, path, *case.arrays, case.depth, case.activation)
    packed = PackedFFF(case.w_in, case.b_in, case.w_out, case.depth, activation=case.activation)
    testing.assert_fff_close(*packed(case.x, return_path=True), *case.arrays, case.depth, case.activation)


def _weights() -> Iterator[Finding]:
    """The bundled models, against the digests that were recorded when they were made."""
    if not (spec := util.find_spec("ufbert_weights")) or not spec.origin:
        yield "bundled models", "note", "none are installed: pip install ufbert-weights"
        return
    root = Path(spec.origin).parent
    for line in (root / "SHA256SUMS").read_text("utf-8").splitlines():
        expected, name = line.split()
        file = root / name
        if not file.parent.is_dir():
            yield "bundled models", "note", f"{Path(name).parent} is not installed"
        elif not file.is_file():
            yield "bundled models", "FAULT", f"{file} is missing; install ufbert-weights again"
        elif digest([file]) != expected:
            yield "bundled models", "FAULT", f"{file} has other bytes than when it was made; install it again"
        else:
            yield "bundled models", "ok", f"{Path(name).parent} is whole"


def _speed() -> Iterator[Finding]:
    import ufbert_weights

    from ..tasks import SentenceEncoder

    if MODEL not in ufbert_weights.names():
        return
    times = []
    encoder = SentenceEncoder(MODEL)
    for _ in range(60):
        started = time.perf_counter()
        encoder.encode(TEXT)
        times.append(1e3 * (time.perf_counter() - started))
    yield (
        "speed",
        "ok",
        (
            f"{median(times[10:]):.2f} ms for one short text, {MODEL}, float32, "
            f"{threads.get_num_threads()} threads; docs/benchmarks.md has figures of other machines"
        ),
    )
