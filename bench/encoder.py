"""Whole encoders, ours beside the engines that people would use instead.

    python bench/encoder.py minilm FOLDER     all-MiniLM-L6-v2 (float32 folder): one text, 1,000 mixed texts, 32 x 128
    python bench/encoder.py minilm FOLDER --size 12x768     random weights at another size: one text, 1 x 128, 8 x 128
    python bench/encoder.py mpnet FOLDER      all-mpnet-base-v2: one text, 1 x 128, 8 x 128
    python bench/encoder.py bundled           the bundled encoders, dense and with trees, beside each other
    python bench/encoder.py ultrafast         UltraFastBERT-1x11 and dense twins at the released shape, random weights
    python bench/encoder.py growth FOLDER     resident memory over 100,000 calls with texts of all lengths
    python bench/encoder.py busy              one short text while three other processes want each CPU

Needs torch, transformers, onnx and onnxscript to make the other engines' models; onnxruntime, openvino and ctranslate2
take part where they are installed. Every engine's outputs are checked against ours before anything is timed; engines
take turns within one run; figures are medians, with the least and the most of all rounds, written to
bench/results/ISA/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engines
import footprint
import numpy as np
import ufbert_weights

import ufbert
from ufbert.batch import from_padded
from ufbert.heads import MaskedLMHead
from ufbert.layers import Linear

HERE = Path(__file__).parent
DTYPES = ("float32", "bfloat16", "int8")
SHORT = "How do I run a BERT encoder on a CPU without PyTorch?"
SETTLE = 0.1  # seconds between engines: idle threads of the last one's pool spin for a while
COMPARED = 250  # mixed texts whose embeddings are compared with ours
Calls = dict[str, Callable[[], Any]]
CEILING = 3.44  # (4 H^2 + 2 x 4095 H) / (4 H^2 + 24 H) multiply-adds of a layer at H = 768, without attention's own


def mixed_texts(count: int) -> list[str]:
    """Texts of 5 to 130 words made of the example sentences: the same ones in every run."""
    rng = np.random.default_rng(0)
    words = " ".join((HERE.parent / "examples" / "sentences.txt").read_text(encoding="utf-8").split("\n")).split()
    return [" ".join(rng.choice(words, n)) for n in np.clip(rng.lognormal(3.2, 0.6, count), 5, 130).astype(int)]


def measure(title: str, calls: Calls, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each call; the calls take turns, short ones several times in each."""
    repeats = {}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        for _ in range(2):  # the second one is warm
            start = time.perf_counter()
            call()
            taken = time.perf_counter() - start
            repeats[name] = max(1, int(0.2 / taken))
            if taken > 1:  # what was cold about it does not show: it counts
                times[name].append(taken * 1e3)
                break
    for _ in range(rounds):
        for name, call in calls.items():
            if len(times[name]) >= rounds:
                continue
            time.sleep(SETTLE)
            if repeats[name] > 1:
                call()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) * 1e3 / repeats[name])
    rows = {n: {"median": statistics.median(t), "least": min(t), "most": max(t)} for n, t in times.items()}
    print(f"\n{title:<32}{'median ms':>12}{'least':>10}{'most':>10}")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["median"]):
        print(f"{name:<32}{row['median']:>12.2f}{row['least']:>10.2f}{row['most']:>10.2f}", flush=True)
    return rows


def minilm(folder: str, rounds: int, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Sentence embeddings with the dense model, or with one of another size (layers, width)."""
    if size is not None:
        with tempfile.TemporaryDirectory() as made:
            return _minilm(str(engines.write_bert(Path(folder), Path(made, "bert"), *size)), rounds, base_work())
    return _minilm(folder, rounds, base_work() if _config(folder).hidden_size >= 768 else work())


def _minilm(folder: str, rounds: int, batches: dict[str, list[str]]) -> dict[str, Any]:
    encoders: dict[str, Any] = {f"ufbert {dtype}": ufbert.SentenceEncoder(folder, dtype=dtype) for dtype in DTYPES}
    ours, config = encoders["ufbert float32"], _config(folder)
    texts = mixed_texts(1_000)[: COMPARED if config.hidden_size < 768 else COMPARED // 5]
    expected = ours.encode(texts)
    tokens = ours.tokenize(texts)["attention_mask"].sum(1)
    print(f"mixed texts: {tokens.mean():.1f} tokens on average, {tokens.min()} to {tokens.max()}")
    with tempfile.TemporaryDirectory() as scratch:
        encoders |= engines.sentence_encoders(folder, Path(scratch), ours, texts[:128])
        lowest, costs = {}, {}
        known = footprints(folder, scratch, encoders) if config.family == "bert" else {}
        for name, (engine, dtype, model) in known.items():
            costs[name] = footprint.measure(engine, dtype, model, folder, rounds=3)
            costs[name]["installed, MB"] = footprint.installed_megabytes(footprint.PACKAGES[engine])
            print(f"{name:<32}", *(f"{key} {value:.2f}" for key, value in costs[name].items()), flush=True)
        for name, encoder in list(encoders.items()):
            lowest[name] = float(np.einsum("nd,nd->n", encoder.encode(texts), expected).min())
            print(f"{name:<32} lowest cosine to ours in float32 {lowest[name]:.5f}", flush=True)
            if lowest[name] < (0.85 if "int8" in name else 0.999):
                print(f"{name}: gives others than the model's embeddings, and is left out")
                if name.startswith("ufbert"):
                    sys.exit(1)
                del encoders[name]
        # Trees of random weights: nothing to compare with but their own layers, part by part.
        trees = engines.write_fff(Path(folder), Path(scratch, "fff")) if config.family == "bert" else None
        for dtype in DTYPES[::2] if trees else ():
            encoders[f"ufbert 8x8 FFF {dtype}"] = encoder = ufbert.SentenceEncoder(trees, dtype=dtype)
            check_parts(encoder)
        times = {
            title: measure(title, {n: lambda e=e, b=batch: e.encode(b) for n, e in encoders.items()}, rounds)
            for title, batch in batches.items()
        }
    print_ratios(times)
    print_table(times, lowest, costs)
    return {"mean tokens": float(tokens.mean()), "lowest cosine": lowest, "footprint": costs, "milliseconds": times}


def _config(folder: str) -> Any:
    return ufbert.SentenceEncoder(folder)._model.texts.model.config


def work() -> dict[str, list[str]]:
    """What sentence encoders are timed on."""
    return {"one short text": [SHORT], "1,000 mixed texts": mixed_texts(1_000), "32 x 128 tokens": ["word " * 126] * 32}


def base_work() -> dict[str, list[str]]:
    """What larger models are timed on."""
    text = "word " * 126
    return {"one short text": [SHORT], "1 x 128 tokens": [text], "8 x 128 tokens": [text] * 8}


def bundled(_: str | None, rounds: int) -> dict[str, Any]:
    """The bundled encoders, each checked part by part; what FFF layers bring where everything else is equal."""
    folders = [path for path in map(ufbert_weights.path, ufbert_weights.names()) if (path / "modules.json").exists()]
    encoders = {f"{f.name} {dtype}": ufbert.SentenceEncoder(f, dtype=dtype) for f in folders for dtype in DTYPES}
    for encoder in encoders.values():
        check_parts(encoder)
    times = {
        title: measure(title, {n: lambda e=e, b=batch: e.encode(b) for n, e in encoders.items()}, rounds)
        for title, batch in work().items()
    }
    return {"milliseconds": times}


def footprints(folder: str, scratch: str, encoders: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """What `footprint.measure` needs for each engine that was found: its name, precision and model."""
    models = {
        "ufbert": {dtype: folder for dtype in DTYPES},
        "ONNX Runtime": {"float32": f"{scratch}/minilm.onnx", "int8": f"{scratch}/minilm.int8.onnx"},
        "OpenVINO": {"float32": f"{scratch}/minilm.onnx", "int8": f"{scratch}/minilm.openvino-int8.xml"},
        "CTranslate2": {"float32": f"{scratch}/ctranslate2", "int8": f"{scratch}/ctranslate2"},
        "torch": {"float32": folder},
    }
    known = {f"{engine} {dtype}": (engine, dtype, path) for engine, of in models.items() for dtype, path in of.items()}
    return {name: what for name, what in known.items() if any(encoder.startswith(name) for encoder in encoders)}


def check_parts(encoder: ufbert.SentenceEncoder) -> None:
    """The layers in one call give what their parts give one after another."""
    model = encoder._model.texts.model.encoder
    batch, _ = from_padded(encoder.tokenize(mixed_texts(50)[-1:])["input_ids"])
    x = model.embeddings(batch)
    for layer in model.layers:
        if not np.array_equal(layer(x, batch), layer.in_parts(x, batch)):
            sys.exit("expected the bits of the layer's parts, found others; the figures would mean nothing")
        x = layer(x, batch)


def print_ratios(times: dict[str, dict[str, dict[str, float]]]) -> None:
    """Ours over the fastest other engine at the same precision."""
    for title, rows in times.items():
        for dtype in ("float32", "int8"):
            others = {n: r["median"] for n, r in rows.items() if dtype in n and not n.startswith("ufbert")}
            if not others:
                continue
            best = min(others, key=others.__getitem__)
            for name in filter(rows.__contains__, (f"ufbert {dtype}", f"ufbert 8x8 FFF {dtype}")):
                print(f"{title}: {name} {others[best] / rows[name]['median']:.2f}x of {best}")


def print_table(times: dict[str, Any], lowest: dict[str, float], costs: dict[str, dict[str, float]]) -> None:
    """The README's table: each engine at the better of its settings, fastest on mixed texts first."""
    titles, best = list(times), {}
    for name in sorted(times[titles[1]], key=lambda name: times[titles[1]][name]["median"]):
        best.setdefault(name.split(",")[0], [name]).append(name)
    keys = ("cold start, s", "peak, MB", "installed, MB")
    print("\n| | " + " | ".join((*titles, "lowest cosine", *keys)) + " |\n" + "|---" * (len(titles) + 5) + "|")
    for short, names in best.items():
        cells = [f"{min(times[title][name]['median'] for name in names):,.3g}" for title in titles]
        cells = [cell if "e" not in cell else f"{float(cell):,.0f}" for cell in cells]
        cells.append(f"{lowest[names[0]]:.4f}" if names[0] in lowest else "")
        cells += [f"{costs[short][key]:.3g}" if short in costs else "" for key in keys]
        label = f"**{short}**" if short.startswith("ufbert") else short
        print(f"| {label} | " + " | ".join(cells) + " |")


def plot(times: dict[str, dict[str, dict[str, float]]], file: Path) -> None:
    """Bars of all engines, where matplotlib is installed."""
    if not engines.has("matplotlib"):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(times), figsize=(15, 5), layout="constrained")
    for axis, (title, rows) in zip(axes, times.items(), strict=True):
        rows = dict(sorted(rows.items(), key=lambda item: -item[1]["median"]))
        colours = ["tab:blue" if name.startswith("ufbert") else "tab:gray" for name in rows]
        axis.barh(list(rows), [row["median"] for row in rows.values()], color=colours)
        axis.set_title(title)
        axis.set_xlabel("milliseconds, median")
        axis.tick_params(axis="y", labelsize=7)
    figure.savefig(file, dpi=110)


def growth(folder: str, _: int) -> dict[str, Any]:
    """Resident memory over many calls."""
    encoder = ufbert.SentenceEncoder(folder, dtype="int8")
    texts, calls, resident = mixed_texts(1_000), 100_000, {}
    for call in range(calls + 1):
        if call % 20_000 == 0 or call == 2_000:
            status = Path("/proc/self/status").read_text()
            resident[call] = int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6
            print(f"{call:>8} calls: {resident[call]:.1f} MB", flush=True)
        encoder.encode(texts[call % 1_000][: call % 97 + 1])
    return {"resident, MB": resident}


def ultrafast(_: None, rounds: int) -> dict[str, Any]:
    """UltraFastBERT-1x11 beside dense models of 4095 and 3072 neurons a layer."""
    ids = np.random.default_rng(0).integers(5, 32_768, (32, 128))
    times = {}
    with tempfile.TemporaryDirectory() as scratch:
        fff = engines.write_crammed(Path(scratch, "fff"), intermed_type="fff", intermed_size=1, intermed_depth=11)
        models = {f"ufbert 1x11 {dtype}": _hidden(ufbert.load(fff, dtype)) for dtype in DTYPES}
        leaves = [len(np.unique(path[:, 0, -1])) for path in routes(ufbert.load(fff), ids)]
        print(f"distinct leaves, of 2,048, that {ids.size} tokens reach in each layer: {leaves}")
        for width in (4095, 3072):
            folder = engines.write_crammed(Path(scratch, str(width)), intermed_type="ff", intermed_size=width)
            dense = ufbert.load(folder)
            models[f"ufbert dense {width} float32"] = _hidden(dense)
            for name, run in engines.graphs(folder, Path(scratch, f"{width}.onnx")).items():
                difference = float(np.abs(run(ids[:2]) - models[f"ufbert dense {width} float32"](ids[:2])).max())
                print(f"{name} dense {width}: largest difference to ours {difference:.1e}", flush=True)
                if difference > 1e-3 and "float32" in name:
                    sys.exit(f"{name}: expected the dense twin's hidden states, found others")
                engine, dtype = name.rsplit(" ", 1)
                models[f"{engine} dense {width} {dtype}"] = run
        heads = measure("LM head at one of 128 tokens", fill_mask_heads(fff), rounds)
        for texts, length in ((1, 16), (1, 128), (32, 128)):
            part = np.ascontiguousarray(ids[:texts, :length])
            calls = {name: lambda run=run, part=part: run(part) for name, run in models.items()}
            title = f"{texts} x {length} tokens"
            times[title] = measure(title, calls, rounds if texts == 1 else max(1, rounds - 1))
    print(f"\nceiling of 1x11 over the dense twin at equal precision: {CEILING}")
    for title, rows in times.items():
        medians = {name: row["median"] for name, row in rows.items()}
        for dtype in ("float32", "int8"):
            twins = [time for name, time in medians.items() if f"dense 4095 {dtype}" in name and "ufbert" not in name]
            ratio = min(twins) / medians[f"ufbert 1x11 {dtype}"]
            print(f"{title}: ufbert 1x11 {dtype} {ratio:.2f}x of the fastest twin")
    return {"distinct leaves": leaves, "ceiling": CEILING, "milliseconds": times, "fill-mask": heads}


def fill_mask_heads(folder: Path) -> Calls:
    """The head alone at one token, and at all 128 as a model without the choice computes it."""
    hidden = np.random.default_rng(0).standard_normal((128, 768), np.float32)
    word = ufbert.load(folder).encoder.embeddings.word
    calls: Calls = {}
    for dtype in DTYPES:
        decoder = Linear(word) if dtype == "float32" else Linear(word, dtype=dtype)
        head = MaskedLMHead(None, "gelu", None, decoder)
        calls[f"one row, {dtype}"] = lambda head=head: head(hidden[5:6])
        calls[f"128 rows, {dtype}"] = lambda head=head: head(hidden)
    return calls


def _hidden(model: ufbert.Model) -> Callable[[np.ndarray], np.ndarray]:
    def run(ids: np.ndarray) -> np.ndarray:
        batch, _ = from_padded(ids)
        return model.encoder(batch).reshape(*ids.shape, -1)

    return run


def routes(model: ufbert.Model, ids: np.ndarray) -> Iterator[np.ndarray]:
    """Paths of all tokens, layer by layer."""
    batch, _ = from_padded(ids)
    x = model.encoder.embeddings(batch)
    for layer in model.encoder.layers:
        x = layer.attention(layer.norm1(x), batch, residual=x)
        y, path = layer.feed_forward.trees(layer.norm2(x), return_path=True)
        x = x + y
        yield path


def busy(_: None, rounds: int) -> dict[str, Any]:
    """One short text by one thread and by several while other processes want the CPUs, and without them."""
    cpus = len(os.sched_getaffinity(0))
    calls: Calls = {}
    for dtype in DTYPES:
        encoder = ufbert.SentenceEncoder("all-MiniLM-L6-v2", dtype=dtype)
        for threads in dict.fromkeys((1, cpus)):
            calls[f"{dtype}, {threads} threads"] = lambda e=encoder, n=threads: _encode_short(e, n)
    times = {"no others": measure("no others", calls, rounds)}
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3 * cpus)]
    try:
        times["busy"] = measure(f"{len(others)} others on {cpus} CPUs", calls, rounds)
    finally:
        for other in others:
            other.kill()
    return {"milliseconds": times}


def _encode_short(encoder: ufbert.SentenceEncoder, threads: int) -> None:
    os.environ["UFBERT_NUM_THREADS"] = str(threads)
    encoder.encode(SHORT)


def results() -> Path:
    """The folder of this kind of machine's figures."""
    folder = HERE / "results" / ufbert.info()["instruction_set"]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def spinning() -> str:
    """How the engines' idle threads wait, by what they read from the environment."""
    ort = "ONNX Runtime's threads spin (session default)"
    policy = os.environ.get("OMP_WAIT_POLICY", "not set: threads of OpenMP engines spin for a while")
    return f"{ort}; OMP_WAIT_POLICY {policy}; ours spin for 50 microseconds, between calls for 200"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    with open("/proc/cpuinfo") as stream:
        cpu = next(line.split(":")[1].strip() for line in stream if line.startswith("model name"))
    waiting = {"bench_threads": engines.THREADS, "spinning": spinning(), "peers": engines.versions()}
    return waiting | {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "system": platform.release(), **ufbert.info()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("minilm", "mpnet", "bundled", "ultrafast", "growth", "busy"))
    parser.add_argument("folder", nargs="?", help="all-MiniLM-L6-v2 in float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="of every engine (default: 2)")
    parser.add_argument("--size", metavar="LAYERSxWIDTH", help="minilm: a BERT of this size with random weights")
    arguments = parser.parse_args()
    if arguments.what in ("minilm", "mpnet", "growth") and not arguments.folder:
        parser.error(f"{arguments.what} needs the model's folder")
    runs = {"minilm": minilm, "mpnet": minilm, "bundled": bundled, "ultrafast": ultrafast, "growth": growth}
    run = (runs | {"busy": busy})[arguments.what]
    engines.THREADS = arguments.threads
    os.environ["UFBERT_NUM_THREADS"] = str(arguments.threads)
    facts = machine()
    print(
        f"{facts['instruction_set']}, {facts['cpu']}, {arguments.threads} threads of each engine; {facts['spinning']}"
    )
    if arguments.size:
        layers, width = map(int, arguments.size.split("x"))
        figures = minilm(arguments.folder, arguments.rounds, (layers, width))
    else:
        figures = run(arguments.folder, arguments.rounds)
    target = results() / f"encoder-{arguments.size or arguments.what}.json"
    target.write_text(json.dumps({"machine": facts, **figures}, indent=1) + "\n")
    if run is minilm:
        plot(figures["milliseconds"], target.with_suffix(".png"))
    print(f"\nwritten to {target}")
