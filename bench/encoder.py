"""Whole encoders, ours beside the engines that people would use instead.

    python bench/encoder.py minilm FOLDER     all-MiniLM-L6-v2 (float32 folder): one text, 1,000 mixed texts, 32 x 128
    python bench/encoder.py ultrafast         UltraFastBERT-1x11 and dense twins at the released shape, random weights

Needs torch, transformers, onnx and onnxscript to make the other engines' models; onnxruntime, openvino and ctranslate2
take part where they are installed. Every engine's outputs are checked against ours before anything is timed; engines
take turns within one run; figures are medians, with the least and the most of all rounds. bench/results/ gets the JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engines
import numpy as np

import ufbert
from ufbert.batch import from_padded

HERE = Path(__file__).parent
DTYPES = ("float32", "bfloat16", "int8")
SHORT = "How do I run a BERT encoder on a CPU without PyTorch?"
SETTLE = 0.1  # seconds between engines: idle threads of the last one's pool spin for a while
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
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, int(0.2 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(SETTLE)
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


def minilm(folder: str, rounds: int) -> dict[str, Any]:
    """Sentence embeddings with the dense model."""
    encoders: dict[str, Any] = {f"ufbert {dtype}": ufbert.SentenceEncoder(folder, dtype=dtype) for dtype in DTYPES}
    texts = mixed_texts(1_000)
    ours = encoders["ufbert float32"]
    expected = ours.encode(texts)
    tokens = ours.tokenize(texts)["attention_mask"].sum(1)
    print(f"1,000 mixed texts: {tokens.mean():.1f} tokens on average, {tokens.min()} to {tokens.max()}")
    with tempfile.TemporaryDirectory() as scratch:
        encoders |= engines.sentence_encoders(folder, Path(scratch), ours)
        lowest = {}
        for name, encoder in encoders.items():
            lowest[name] = float(np.einsum("nd,nd->n", encoder.encode(texts), expected).min())
            print(f"{name:<32} lowest cosine to ours in float32 {lowest[name]:.5f}", flush=True)
            if lowest[name] < (0.85 if "int8" in name else 0.999):
                sys.exit(f"{name}: expected the model's embeddings, found others; its figures would mean nothing")
        work = {"one short text": [SHORT], "1,000 mixed texts": texts, "32 x 128 tokens": ["word " * 126] * 32}
        times = {
            title: measure(title, {n: lambda e=e, b=batch: e.encode(b) for n, e in encoders.items()}, rounds)
            for title, batch in work.items()
        }
    return {"mean tokens": float(tokens.mean()), "lowest cosine": lowest, "milliseconds": times}


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
                models[f"{name.replace(' ', f' dense {width} ', 1)}"] = run
        for texts, length in ((1, 16), (1, 128), (32, 128)):
            part = np.ascontiguousarray(ids[:texts, :length])
            calls = {name: lambda run=run, part=part: run(part) for name, run in models.items()}
            title = f"{texts} x {length} tokens"
            times[title] = measure(title, calls, rounds if texts == 1 else 3)
    print(f"\nceiling of 1x11 over the dense twin at equal precision: {CEILING}")
    return {"distinct leaves": leaves, "ceiling": CEILING, "milliseconds": times}


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


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    with open("/proc/cpuinfo") as stream:
        cpu = next(line.split(":")[1].strip() for line in stream if line.startswith("model name"))
    return {"cpu": cpu, "cpus": len(os.sched_getaffinity(0)), "system": platform.release(), **ufbert.info()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("minilm", "ultrafast"))
    parser.add_argument("folder", nargs="?", help="all-MiniLM-L6-v2 in float32")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.what == "minilm" and not arguments.folder:
        parser.error("minilm needs the model's folder")
    figures = {"minilm": minilm, "ultrafast": ultrafast}[arguments.what](arguments.folder, arguments.rounds)
    (HERE / "results").mkdir(exist_ok=True)
    target = HERE / "results" / f"encoder-{arguments.what}.json"
    target.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    print(f"\nwritten to {target}")
