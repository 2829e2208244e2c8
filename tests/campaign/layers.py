"""Random layers in C on every instruction set: compiles tests/sanitizers/layers.c with the kernels, and runs it."""

import os
import subprocess
import time
from pathlib import Path

from folders import scratch

ROOT = Path(__file__).parents[2]
AT_ONCE = 100_000


def layers(seed, seconds, jobs=2):
    """Run batches of layers; one row of the report."""
    program, cases, faults, end = scratch() / "layers", 0, [], time.monotonic() + seconds
    kernels = ROOT / "ufbert" / "kernels"
    sources = [str(ROOT / "tests" / "sanitizers" / "layers.c"), *map(str, kernels.rglob("*.c"))]
    flags = ["-std=gnu11", "-O2", "-ffp-contract=off", "-I", str(kernels), "-lm", "-lpthread"]
    subprocess.run([os.environ.get("CC", "gcc"), *sources, *flags, "-o", str(program)], check=True)
    while time.monotonic() < end:
        command = [str(program), str(seed), str(cases), str(AT_ONCE), str(jobs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cases += AT_ONCE
        if done.returncode:
            faults.append({"case": cases - AT_ONCE, "fault": f"exit status {done.returncode}: {done.stdout[-900:]}"})
    yield "float32, bfloat16 and int8", cases, faults
