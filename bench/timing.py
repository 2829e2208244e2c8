"""What the layer benchmarks share: the machine, timings in turns, its limits, and one report a layer."""

import os
import platform
import statistics
import time
import timeit
from pathlib import Path

import numpy as np

import ufbert
from ufbert import cmm

SETTLE = 0.1  # seconds between candidates


def machine():
    """Facts that explain the figures."""
    facts = {"system": platform.platform(), "python": platform.python_version(), "numpy": np.__version__}
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        facts["cpu"] = names[0] if names else platform.machine()
    facts |= {
        "cpus": os.cpu_count(),
        "isa": cmm.active_isa(),
        "load_before": os.getloadavg(),
        "ufbert": ufbert.__version__,
    }
    huge_pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if huge_pages.exists():
        facts["huge_pages"] = huge_pages.read_text().strip()
    facts["environment"] = {k: v for k, v in os.environ.items() if k.startswith(("OMP_", "OPENBLAS", "UFBERT", "MKL_"))}
    for module in ("torch", "onnxruntime", "openvino", "scipy"):
        try:
            facts[module] = __import__(module).__version__
        except ImportError:
            facts[module] = None
    return facts


def in_turns(candidates, rounds, seconds=0.02):
    """Time each candidate in every round; fast ones repeatedly, for `seconds`. Returns milliseconds by name."""
    repeats = {}
    for name, run in candidates.items():
        # The fastest of three: the first ones wake threads, or wait for those of the previous candidate.
        fastest = min(timeit.repeat(run, number=1, repeat=3))
        repeats[name] = max(1, min(2000, int(seconds / max(fastest, 1e-7))))
    samples = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            # Idle threads of the previous candidate's pool spin for some milliseconds and would share the cores.
            time.sleep(SETTLE)
            if repeats[name] > 1:
                run()
            for _ in range(repeats[name]):
                start = time.perf_counter()
                run()
                samples[name].append((time.perf_counter() - start) * 1e3)
    return {name: summary(values) for name, values in samples.items()}


def summary(values):
    quarters = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {
        "ms": statistics.median(values),
        "low": quarters[0],
        "high": quarters[2],
        "best": min(values),
        "n": len(values),
    }


def limits(threads):
    """What this machine reaches now: float32 multiply-adds in NumPy's GEMM, and traffic with memory of large copies."""
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_limits

    a = np.random.default_rng(1).standard_normal((1536, 1536), np.float32)
    source = np.ones((threads, 1 << 24), np.float32)
    target = np.zeros_like(source)
    with threadpool_limits(threads):
        gemm = in_turns({"gemm": lambda: a @ a}, 12)["gemm"]["best"]
    with ThreadPoolExecutor(threads) as pool:
        copy = in_turns({"copy": lambda: list(pool.map(np.copyto, target, source))}, 8)["copy"]["best"]
    return {"gflops": 2 * 1536**3 / gemm / 1e6, "copy_gb_s": 2 * source.nbytes / copy / 1e6}


def diversity(path, depth):
    """Distinct leaves of the first tree that the batch reached, and their entropy in bits."""
    counts = np.unique(path[:, 0, -1], return_counts=True)[1]
    shares = counts / counts.sum()
    return {"leaves": len(counts), "of": 2**depth, "entropy": float(-(shares * np.log2(shares)).sum() + 0.0)}


def bound_ms(layer, path, limit, cached_weights):
    """The time that arithmetic, or traffic with memory, would take alone: the larger of the two, and which it is."""
    count = len(path)
    flops = 2 * count * layer.num_trees * (layer.depth + 1) * (layer.width_in + layer.width_out)
    item = {"float32": 4, "bfloat16": 2, "int8": 1}[layer.weight_dtype]
    rows = sum(len(np.unique(path[:, tree])) for tree in range(layer.num_trees))
    traffic = 4 * count * (layer.width_in + layer.width_out)
    traffic += 0 if cached_weights else rows * item * (layer.width_in + layer.width_out)
    arithmetic, memory = flops / limit["gflops"] / 1e6, traffic / limit["copy_gb_s"] / 1e6
    return (arithmetic, "FMA") if arithmetic > memory else (memory, "memory")


def report(title, times, ours, theory, spread, bounds=None):
    """Print one layer's times: ours as ratios to the fastest dense one, with instruction set, ceiling and diversity."""
    dense = {name: t for name, t in times.items() if name not in ours}
    best = min(dense, key=lambda name: dense[name]["ms"])
    facts = {"title": title, "isa": cmm.active_isa(), "fastest_dense": best, "theory": theory, "diversity": spread}
    rows = facts | {"dense": dense, "ours": {}}
    paths = f"leaves {spread['leaves']} of {spread['of']}, {spread['entropy']:.1f} bits"
    print(f"\n{title}: {facts['isa']}, ceiling {theory:.0f}x, {paths}")
    for name, t in sorted(dense.items(), key=lambda item: item[1]["ms"]):
        print(f"  {name:28s} {t['ms']:10.4f} ms  [{t['low']:.4f} .. {t['high']:.4f}]")
    for name in ours:
        t = times[name]
        ratio, ratio_best = dense[best]["ms"] / t["ms"], dense[best]["best"] / t["best"]
        rows["ours"][name] = t | {"ratio": ratio, "ratio_of_best": ratio_best}
        line = f"  {name:28s} {t['ms']:10.4f} ms  [{t['low']:.4f} .. {t['high']:.4f}]"
        line += f"  {ratio:6.1f}x of {theory:.0f}x (best/best {ratio_best:.1f}x; {facts['isa']}; {paths})"
        if bounds:
            milliseconds, what = bounds[name]
            rows["ours"][name] |= {"bound_ms": milliseconds, "bound": what, "of_bound": milliseconds / t["ms"]}
            line += f"  {100 * milliseconds / t['ms']:.0f} % of the bound ({what})"
        print(line, flush=True)
    return rows
