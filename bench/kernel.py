"""Measures the fast feedforward kernels against dense feed-forward layers, in one run, outputs verified first.

    python bench/kernel.py            # about ten minutes; writes bench/results/kernel.json and kernel.png
    python bench/kernel.py --quick    # about one minute; prints only

Every ratio is the fastest correct dense float32 layer over ours, same shape, same threads, measured in turns.
Inputs are normal, weights are scaled so that scores have a deviation of about 1 and every leaf is reached; how many
distinct leaves a batch really reached, and their entropy, stand beside each figure.
"""

import argparse
import json
import os
import platform
import statistics
import time
import timeit
from pathlib import Path

import numpy as np
from dense import installed

import ufbert
from ufbert import cmm, reference, testing

RESULTS = Path(__file__).parent / "results"
HIDDEN = 768
PAPER_SWEEP = [
    (1, 11),
    (2, 10),
    (4, 9),
    (8, 8),
    (16, 7),
    (32, 6),
    (64, 5),
    (128, 4),
    (256, 3),
    (512, 2),
    (1536, 1),
    (3072, 0),
]
SETTLE = 0.1  # seconds between candidates
STACK = 16  # layers of the model whose weights a single token goes through
GPT3_WIDTH, GPT3_NEURONS, GPT3_DEPTH = 12_288, 49_152, 15


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
    for path, name in (("/sys/kernel/mm/transparent_hugepage/enabled", "huge_pages"),):
        if Path(path).exists():
            facts[name] = Path(path).read_text().strip()
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


def weights(trees, depth, width=HIDDEN, seed=0):
    rng, nodes = np.random.default_rng(seed), 2 ** (depth + 1) - 1
    w_in = rng.standard_normal((trees, nodes, width), np.float32)
    w_in /= np.float32(np.sqrt(width))
    b_in = rng.standard_normal((trees, nodes), np.float32) * np.float32(0.1)
    w_out = rng.standard_normal((trees, nodes, width), np.float32)
    w_out *= np.float32(1 / np.sqrt(trees * (depth + 1)))
    return w_in, b_in, w_out


def tokens(count, width=HIDDEN, seed=1):
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


def diversity(path, depth):
    """Distinct leaves of the first tree that the batch reached, and their entropy in bits."""
    counts = np.unique(path[:, 0, -1], return_counts=True)[1]
    shares = counts / counts.sum()
    return {"leaves": len(counts), "of": 2**depth, "entropy": float(-(shares * np.log2(shares)).sum() + 0.0)}


def verify(layer, arrays, x):
    """Ours against the float64 reference, along the path taken; the first 64 tokens."""
    y, path = layer(x, return_path=True)
    if layer.weight_dtype == "bfloat16":
        arrays = (reference.round_to_bfloat16(arrays[0]), arrays[1], reference.round_to_bfloat16(arrays[2]))
    few = slice(0, 64)
    testing.assert_fff_close(y[few], path[few], x[few], *arrays, layer.depth)
    return diversity(path, layer.depth)


def verify_dense(runs, x):
    """All dense layers against each other; returns those that agree with the first."""
    first, expected = None, None
    agreed = {}
    for name, run in runs.items():
        y = np.array(run(x[:64]))
        if first is None:
            first, expected = name, y
        if np.abs(y - expected).max() > 1e-4 * np.abs(expected).max():
            raise SystemExit(f"{name}: the dense output differs from {first}'s; its time would prove nothing")
        agreed[name] = run
    return agreed


def limits(threads):
    """What this machine reaches now: float32 multiply-adds in NumPy's GEMM, and traffic with memory of large copies."""
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_limits

    a = tokens(1536, 1536)
    source = np.ones((threads, 1 << 24), np.float32)
    target = np.zeros_like(source)
    with threadpool_limits(threads):
        gemm = in_turns({"gemm": lambda: a @ a}, 12)["gemm"]["best"]
    with ThreadPoolExecutor(threads) as pool:
        copy = in_turns({"copy": lambda: list(pool.map(np.copyto, target, source))}, 8)["copy"]["best"]
    return {"gflops": 2 * 1536**3 / gemm / 1e6, "copy_gb_s": 2 * source.nbytes / copy / 1e6}


def bound_ms(layer, path, limit, cached_weights):
    """The time that arithmetic, or traffic with memory, would take alone: the larger of the two, and which it is."""
    count = len(path)
    flops = 2 * count * layer.num_trees * (layer.depth + 1) * (layer.width_in + layer.width_out)
    item = 2 if layer.weight_dtype == "bfloat16" else 4
    rows = sum(len(np.unique(path[:, tree])) for tree in range(layer.num_trees))
    traffic = 4 * count * (layer.width_in + layer.width_out)
    traffic += 0 if cached_weights else rows * item * (layer.width_in + layer.width_out)
    arithmetic, memory = flops / limit["gflops"] / 1e6, traffic / limit["copy_gb_s"] / 1e6
    return (arithmetic, "FMA") if arithmetic > memory else (memory, "memory")


def report(title, times, ours, theory, spread, bounds=None):
    dense = {name: t for name, t in times.items() if name not in ours}
    best = min(dense, key=lambda name: dense[name]["ms"])
    rows = {"title": title, "fastest_dense": best, "dense": dense, "ours": {}, "theory": theory, "diversity": spread}
    print(f"\n{title}: limit {theory:.0f}x; leaves {spread['leaves']} of {spread['of']}, {spread['entropy']:.1f} bits")
    for name, t in sorted(dense.items(), key=lambda item: item[1]["ms"]):
        print(f"  {name:28s} {t['ms']:10.4f} ms  [{t['low']:.4f} .. {t['high']:.4f}]")
    for name in ours:
        t = times[name]
        ratio, ratio_best = dense[best]["ms"] / t["ms"], dense[best]["best"] / t["best"]
        rows["ours"][name] = t | {"ratio": ratio, "ratio_of_best": ratio_best}
        line = f"  {name:28s} {t['ms']:10.4f} ms  [{t['low']:.4f} .. {t['high']:.4f}]"
        line += f"  {ratio:6.1f}x (best/best {ratio_best:.1f}x)"
        if bounds:
            milliseconds, what = bounds[name]
            rows["ours"][name] |= {"bound_ms": milliseconds, "bound": what, "of_bound": milliseconds / t["ms"]}
            line += f"  {100 * milliseconds / t['ms']:.0f} % of the bound ({what})"
        print(line, flush=True)
    return rows


def headline(batch, threads, rounds, limit):
    """768 -> 4095 -> 768, 1x11."""
    arrays = weights(1, 11)
    x, out = tokens(batch), np.empty((batch, HIDDEN), np.float32)
    dense = verify_dense(
        {n: make(arrays[0][0], arrays[1][0], arrays[2][0], threads) for n, make in installed().items()}, x
    )
    runs = {name: (lambda run=run: run(x)) for name, run in dense.items()}
    names, bounds = [], {}
    for dtype in ("float32", "bfloat16"):
        layer = cmm.PackedFFF(*arrays, 11, weight_dtype=dtype)
        spread = verify(layer, arrays, x)
        out = aligned(batch)
        name = f"ufbert {dtype}"
        names.append(name)
        bounds[name] = bound_ms(layer, layer(x, return_path=True)[1], limit, cached_weights=True)
        runs[name] = lambda layer=layer, out=out: layer(x, num_threads=threads, out=out)
    return report(
        f"768 -> 4095 -> 768, 1x11, batch {batch}, {threads} thread(s)",
        in_turns(runs, rounds, 0.2 if batch > 1000 else 0.02),
        names,
        4095 / 12,
        spread,
        bounds,
    )


def aligned(batch, width=HIDDEN):
    memory = np.zeros(batch * width + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + batch * width].reshape(batch, width)


def single_token(threads, rounds):
    """One token through a stack of layers in turn: both sides find their weights in memory, not in L2."""
    stack = [weights(1, 11, seed=seed) for seed in range(STACK)]
    x, out = tokens(512), np.empty((1, HIDDEN), np.float32)
    dense = {}
    for name, make in installed().items():
        layers = [make(w_in[0], b_in[0], w_out[0], threads) for w_in, b_in, w_out in stack]
        verify_dense(
            {"NumPy": installed()["NumPy"](stack[0][0][0], stack[0][1][0], stack[0][2][0], threads), name: layers[0]}, x
        )
        dense[name] = layers
    ours = {
        f"ufbert {t}": [cmm.PackedFFF(*arrays, 11, weight_dtype=t) for arrays in stack] for t in ("float32", "bfloat16")
    }
    spread = verify(ours["ufbert float32"][0], stack[0], x)
    verify(ours["ufbert bfloat16"][0], stack[0], x)
    turn = iter(range(10**9))

    def through(layers, **options):
        token = next(turn) % 512
        for layer in layers:
            layer(x[token : token + 1], **options)

    runs = {name: (lambda layers=layers: through(layers)) for name, layers in dense.items()}
    runs |= {
        name: (lambda layers=layers: through(layers, num_threads=threads, out=out)) for name, layers in ours.items()
    }
    times = in_turns(runs, rounds, seconds=0.05)
    for t in times.values():
        t.update({key: t[key] / STACK for key in ("ms", "low", "high", "best")})
    return report(
        f"768 -> 4095 -> 768, 1x11, batch 1, a stack of 16, {threads} thread(s)", times, list(ours), 4095 / 12, spread
    )


def sweep(threads, rounds, batch=2048):
    """All shapes of the paper with about 4095 neurons; the dense layer has 4095."""
    x, rows = tokens(batch), []
    arrays = weights(1, 11)
    makers = installed()
    best = "OpenVINO" if "OpenVINO" in makers else next(iter(makers))
    dense = makers[best](arrays[0][0], arrays[1][0], arrays[2][0], threads)
    for trees, depth in PAPER_SWEEP:
        arrays = weights(trees, depth)
        layer = cmm.PackedFFF(*arrays, depth)
        spread = verify(layer, arrays, x)
        out, name = aligned(batch), f"ufbert {trees}x{depth}"
        runs = {best: lambda: dense(x), name: lambda layer=layer, out=out: layer(x, num_threads=threads, out=out)}
        theory = 4095 / (trees * (depth + 1))
        rows.append(
            report(
                f"{trees}x{depth}, batch {batch}, {threads} thread(s)", in_turns(runs, rounds), [name], theory, spread
            )
        )
    return rows


def depth_cost(threads, rounds, depths, batch=4096):
    """The cost of a token against the number of neurons."""
    x, out, rows = tokens(batch), aligned(batch), []
    print(f"\nneurons, nanoseconds a token at batch {batch}, {threads} thread(s): float32, bfloat16")
    for depth in depths:
        arrays = weights(1, depth)
        layers = {dtype: cmm.PackedFFF(*arrays, depth, weight_dtype=dtype) for dtype in ("float32", "bfloat16")}
        spread = verify(layers["float32"], arrays, x)
        times = in_turns(
            {d: (lambda layer=layer: layer(x, num_threads=threads, out=out)) for d, layer in layers.items()}, rounds
        )
        nanoseconds = {dtype: 1e6 * t["ms"] / batch for dtype, t in times.items()}
        rows.append({"neurons": 2 ** (depth + 1) - 1, "ns": nanoseconds, "diversity": spread})
        figures = f"{nanoseconds['float32']:8.1f}  {nanoseconds['bfloat16']:8.1f}"
        print(f"  {rows[-1]['neurons']:6d}  {figures}   leaves {spread['leaves']}")
    return rows


def walked(x, path, arrays):
    """What this path gives, in float64, on weights rounded to bfloat16; only its rows are widened."""
    y = 0
    for nodes in path.T:
        rows_in, rows_out = (reference.round_to_bfloat16(array[0, nodes]).astype(float) for array in arrays[::2])
        score = np.einsum("th,th->t", x.astype(float), rows_in) + arrays[1][0, nodes]
        y = y + reference.ACTIVATIONS["gelu"](score)[:, None] * rows_out
    return y


def gpt3(threads, rounds, batch=128):
    """Width 12,288: 49,152 dense neurons against one tree of 65,535.

    NumPy and torch share the tree's own arrays; ONNX Runtime and OpenVINO would need copies of 5 GB each.
    """
    arrays = weights(1, GPT3_DEPTH, GPT3_WIDTH)
    batches = [tokens(batch, GPT3_WIDTH, seed) for seed in range(8)]
    makers = {name: make for name, make in installed().items() if name in ("NumPy", "torch")}
    few = (arrays[0][0, :GPT3_NEURONS], arrays[1][0, :GPT3_NEURONS], arrays[2][0, :GPT3_NEURONS])
    runs = verify_dense({name: make(*few, threads) for name, make in makers.items()}, batches[0])
    runs = {name: (lambda run=run: run(batches[0])) for name, run in runs.items()}
    layer = cmm.PackedFFF(*arrays, GPT3_DEPTH, weight_dtype="bfloat16")
    y, path = layer(batches[0], return_path=True)
    spread = diversity(path, GPT3_DEPTH)
    expected = walked(batches[0][:4], path[:4, 0], arrays)
    assert np.abs(y[:4] - expected).max() < 1e-4 * np.abs(expected).max(), "the large layer's output is wrong"
    turn, out = iter(range(10**9)), aligned(batch, GPT3_WIDTH)
    runs["ufbert bfloat16"] = lambda: layer(batches[next(turn) % 8], num_threads=threads, out=out)
    theory = GPT3_NEURONS / (GPT3_DEPTH + 1)
    title = f"12288 -> 49152 -> 12288, 1x15 of 65,535, batch {batch}, {threads} thread(s)"
    return report(title, in_turns(runs, rounds, 0.1), ["ufbert bfloat16"], theory, spread)


def training_step(threads, rounds, batch=4096):
    """Forward and backward of 1x11 against the dense masked step in NumPy."""
    from scipy.special import erf
    from threadpoolctl import threadpool_limits

    arrays, x, dy = weights(1, 11), tokens(batch), tokens(batch, seed=2)
    w_in, b_in, w_out = arrays[0][0], arrays[1][0], arrays[2][0]
    _, path = cmm.fff_forward(x, *arrays, 11, return_path=True)

    def dense():
        with threadpool_limits(threads):
            scores = x @ w_in.T + b_in
            node, mask = np.zeros(batch, int), np.zeros(scores.shape, np.float32)
            for _ in range(12):
                mask[np.arange(batch), node] = 1
                node = np.minimum(2 * node + 1 + (scores[np.arange(batch), node] > 0), 4094)
            cdf = np.float32(0.5) * (1 + erf(scores * np.float32(np.sqrt(0.5))))
            active = scores * cdf * mask
            y = active @ w_out
            slope = (cdf + scores * np.exp(np.float32(-0.5) * scores * scores) * np.float32(0.3989423)) * mask
            d_scores = (dy @ w_out.T) * slope
            return y, d_scores @ w_in, d_scores.T @ x, d_scores.sum(axis=0), active.T @ dy

    def ours():
        y, path, scores = cmm.fff_forward(x, *arrays, 11, num_threads=threads, return_path=True, return_scores=True)
        return y, *cmm.fff_backward(dy, x, *arrays, 11, path, scores, num_threads=threads)

    for result, expected in zip(ours(), dense(), strict=True):
        assert np.abs(np.squeeze(result) - expected).max() < 1e-3 * np.abs(expected).max(), "the gradients differ"
    times = in_turns({"NumPy, dense and masked": dense, "ufbert float32": ours}, rounds, 0.2)
    return report(
        f"forward and backward, 1x11, batch {batch}, {threads} thread(s)",
        times,
        ["ufbert float32"],
        4095 / 12,
        diversity(path, 11),
    )


def plot(results, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2))
    rows = [row for row in results["headline"] + results["single_token"] if "2 thread" in row["title"]]
    labels = [row["title"].split(", ")[2] for row in rows]
    for offset, name in ((-0.2, "ufbert float32"), (0.2, "ufbert bfloat16")):
        bars = left.bar(np.arange(len(rows)) + offset, [row["ours"][name]["ratio"] for row in rows], 0.4, label=name)
        left.bar_label(bars, fmt="%.0f")
    left.axhline(78, color="grey", linestyle="--", label="the paper, batch 16,384")
    left.set_xticks(range(len(rows)), labels)
    left.set_ylabel("times the fastest dense float32 layer")
    left.set_title("768 to 4095 to 768, one tree of depth 11, 2 threads")
    left.legend()
    for dtype in ("float32", "bfloat16"):
        right.plot(
            [r["neurons"] for r in results["depth"]], [r["ns"][dtype] for r in results["depth"]], "o-", label=dtype
        )
    right.set_xscale("log", base=2)
    right.set_ylim(bottom=0)
    right.set_xlabel("neurons in the tree")
    right.set_ylabel("nanoseconds a token, batch 4096")
    right.set_title("cost grows with the logarithm of the size")
    right.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer shapes and rounds, no files written")
    parser.add_argument(
        "--skip",
        default="",
        help="sections to leave as the file has them: headline, single_token, sweep, depth, gpt3, training",
    )
    options = parser.parse_args()
    quick, skip, start = options.quick, options.skip.split(","), time.time()
    pairs = [(128, 2)] if quick else [(16384, 2), (128, 2), (128, 1), (16384, 1)]
    sections = {
        "headline": lambda: [headline(b, t, 3 if b > 1000 else 15, limit[t]) for b, t in pairs],
        "single_token": lambda: [single_token(t, 5 if quick else 15) for t in ((1,) if quick else (1, 2))],
        "sweep": lambda: [] if quick else sweep(2, 3),
        "depth": lambda: depth_cost(2, 5, range(5, 16, 5 if quick else 1)),
        "training": lambda: [training_step(2, 2 if quick else 4)],
        "gpt3": lambda: [] if quick else [gpt3(2, 3)],
    }
    file = RESULTS / "kernel.json"
    results = json.loads(file.read_text()) if options.skip and file.exists() else {}
    limit = {t: limits(t) for t in (1, 2)}
    results |= {"machine": machine(), "limits": limit}
    print(json.dumps(results["machine"] | {"limits": limit}, indent=1))
    for name, run in sections.items():
        if name in skip:
            continue
        load = os.getloadavg()
        results[name] = run()
        results.setdefault("when", {})[name] = {
            "utc": time.strftime("%F %T", time.gmtime()),
            "load": [load, os.getloadavg()],
        }
        if not quick:  # after each section: an interrupted run keeps what it has
            RESULTS.mkdir(exist_ok=True)
            file.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{(time.time() - start) / 60:.1f} minutes")
    if not quick:
        plot(results, RESULTS / "kernel.png")


if __name__ == "__main__":
    main()
