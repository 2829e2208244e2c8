"""Measures the fast feedforward kernels against dense feed-forward layers, in one run, outputs verified first.

    python bench/kernel.py                                     # about ten minutes; with --out FOLDER, writes there
    python bench/kernel.py --quick                             # about one minute
    python bench/kernel.py --only headline --threads 2 --batches 128 16384 --dtypes float32 int8

Every ratio is the fastest correct dense float32 layer over ours, same shape, same threads, measured in turns.
Inputs are normal, weights are scaled so that scores have a deviation of about 1 and every leaf is reached; how many
distinct leaves a batch really reached, and their entropy, stand beside each figure, with the instruction set and the
ceiling: neurons of the dense layer over those that a token visits.

Inputs are NumPy's own arrays, for all. Our outputs go to memory that a first call returned (`out`). OpenVINO returns
its own memory again and again; NumPy, torch and ONNX Runtime make new arrays, which is below 1 % of their time.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
from dense import installed
from kernel_plot import plot
from timing import bound_ms, diversity, in_turns, limits, machine, report

from ufbert import cmm, reference, testing
from ufbert.int8 import quantize

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
STACK = 16  # layers of the model whose weights a single token goes through
GPT3_WIDTH, GPT3_NEURONS, GPT3_DEPTH = 12_288, 49_152, 15


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


def in_int8(rows):
    """What int8 rows stand for, in float64."""
    matrix = quantize(rows.reshape(-1, rows.shape[-1]))
    return (matrix.values * matrix.scale.astype(np.float64).reshape(-1, 1)).reshape(rows.shape)


def verify(layer, arrays, x):
    """Ours against the float64 reference, along the path taken; the first 64 tokens."""
    y, path = layer(x, return_path=True)
    as_kept = {"float32": np.asarray, "bfloat16": reference.round_to_bfloat16, "int8": in_int8}[layer.weight_dtype]
    arrays = (as_kept(arrays[0]), arrays[1], as_kept(arrays[2]))
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


def headline(batch, threads, rounds, limit, dtypes, width=HIDDEN, depth=11):
    """One tree against the dense layer of as many neurons: 768 -> 4095 -> 768 unless asked otherwise."""
    arrays, x = weights(1, depth, width), tokens(batch, width)
    neurons = arrays[0].shape[1]
    makers = {n: make(arrays[0][0], arrays[1][0], arrays[2][0], threads) for n, make in installed().items()}
    runs = {name: (lambda run=run: run(x)) for name, run in verify_dense(makers, x).items()}
    names, bounds = [], {}
    for dtype in dtypes:
        layer = cmm.PackedFFF(*arrays, depth, weight_dtype=dtype)
        spread, out = verify(layer, arrays, x), layer(x)
        names.append(f"ufbert {dtype}")
        bounds[names[-1]] = bound_ms(layer, layer(x, return_path=True)[1], limit, cached_weights=True)
        runs[names[-1]] = lambda layer=layer, out=out: layer(x, num_threads=threads, out=out)
    title = f"{width} -> {neurons} -> {width}, 1x{depth}, batch {batch}, {threads} thread(s)"
    times = in_turns(runs, rounds, 0.2 if batch > 1000 else 0.02)
    return report(title, times, names, neurons / (depth + 1), spread, bounds)


def single_token(threads, rounds, dtypes):
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
    ours = {f"ufbert {t}": [cmm.PackedFFF(*arrays, 11, weight_dtype=t) for arrays in stack] for t in dtypes}
    spread, *_ = [verify(layers[0], stack[0], x) for layers in ours.values()]
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
        out, name = layer(x), f"ufbert {trees}x{depth}"
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
    x, rows = tokens(batch), []
    print(f"\nneurons, nanoseconds a token at batch {batch}, {threads} thread(s): float32, bfloat16")
    for depth in depths:
        arrays = weights(1, depth)
        layers = {dtype: cmm.PackedFFF(*arrays, depth, weight_dtype=dtype) for dtype in ("float32", "bfloat16")}
        spread, out = verify(layers["float32"], arrays, x), layers["float32"](x)
        runs = {d: (lambda layer=layer, out=out: layer(x, num_threads=threads, out=out)) for d, layer in layers.items()}
        times = in_turns(runs, rounds)
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
    turn, out = iter(range(10**9)), layer(batches[0])
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


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer shapes and rounds, nothing written")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="sections to run")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batches", nargs="+", type=int, default=[128, 16384], help="of the headline")
    parser.add_argument("--width", type=int, default=HIDDEN, help="of the headline's layer")
    parser.add_argument("--depth", type=int, default=11, help="of its tree")
    parser.add_argument("--dtypes", nargs="+", choices=cmm.WEIGHT_DTYPES, default=list(cmm.WEIGHT_DTYPES))
    parser.add_argument("--rounds", type=int, help="of the headline and of one token")
    parser.add_argument("--out", type=Path, help="a folder for kernel.json and kernel.png; other sections stay there")
    return parser.parse_args()


SECTIONS = ["headline", "single_token", "sweep", "depth", "training", "gpt3"]


def main():
    options, start = parsed(), time.time()
    quick, most = options.quick, max(options.threads)
    batches = [b for b in options.batches if not quick or b <= 1000]
    limit = {t: limits(t) for t in options.threads}
    shape = options.dtypes, options.width, options.depth
    sections = {
        "headline": lambda: [
            headline(b, t, options.rounds or (3 if b > 1000 else 15), limit[t], *shape)
            for b in batches
            for t in options.threads
        ],
        "single_token": lambda: [
            single_token(t, options.rounds or (5 if quick else 15), options.dtypes) for t in options.threads
        ],
        "sweep": lambda: [] if quick else sweep(most, 3),
        "depth": lambda: depth_cost(most, 5, range(5, 16, 5 if quick else 1)),
        "training": lambda: [training_step(most, 2 if quick else 4)],
        "gpt3": lambda: [] if quick else [gpt3(most, 3)],
    }
    file = options.out / "kernel.json" if options.out and not quick else None
    results = json.loads(file.read_text()) if file and file.exists() else {}
    results |= {"machine": machine(), "limits": limit}
    print(json.dumps(results["machine"] | {"limits": limit}, indent=1))
    for name in options.only:
        load = os.getloadavg()
        results[name] = sections[name]()
        results.setdefault("when", {})[name] = {
            "utc": time.strftime("%F %T", time.gmtime()),
            "load": [load, os.getloadavg()],
        }
        if file:  # after each section: an interrupted run keeps what it has
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n{(time.time() - start) / 60:.1f} minutes")
    if file and {"headline", "single_token", "depth"} <= results.keys():
        plot(results, file.with_suffix(".png"))


if __name__ == "__main__":
    main()
