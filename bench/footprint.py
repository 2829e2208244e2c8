"""What an engine costs besides time: size on disk, seconds from `python` to a first embedding, resident memory then.

python bench/footprint.py ENGINE DTYPE MODEL TOKENIZER_FOLDER     (what `measure` runs in a process of its own)

`bench/cold.py` shows which steps the seconds are made of.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = {
    "ufbert": "ufbert",
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "CTranslate2": "ctranslate2",
    "torch": "torch",
}
TEXT = "How do I run a BERT encoder on a CPU without PyTorch?"


def installed_megabytes(package: str) -> float:
    """Of a package and all that it requires, with tokenizers, which every engine needs to take text."""
    from importlib import metadata

    waiting, seen, total = [package, "tokenizers", "numpy"], set(), 0
    while waiting:
        name = re.sub("[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        total += sum(file.size or 0 for file in found.files or ())
        # The packages' compiled files of an editable installation are in the working tree.
        if name == "ufbert":
            import importlib.util

            root = Path(importlib.util.find_spec("ufbert").origin).parent
            total += sum(file.stat().st_size for file in [*root.rglob("*.py"), *root.glob("*.so")])
        needed = [text for text in found.requires or () if "extra ==" not in text and "huggingface" not in text]
        waiting += [re.match(r"[\w.-]+", requirement)[0] for requirement in needed]
    return total / 1e6


def measure(engine: str, dtype: str, model: str, folder: str, rounds: int) -> dict[str, float]:
    """Median seconds and megabytes of fresh processes."""
    import statistics  # with hashlib and libcrypto, which the fresh processes need not pay for
    import subprocess

    command = [sys.executable, __file__, engine, dtype, model, folder]
    installed = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    seconds, memory = [], []
    for _ in range(rounds + 1):
        start = time.monotonic()
        output = subprocess.run(command, capture_output=True, text=True, check=True, env=installed).stdout
        memory.append(json.loads(output))
        seconds.append(memory[-1]["end"] - start)
    return {
        "cold start, s": statistics.median(seconds[1:]),  # the first one reads the files from disk
        "resident, MB": statistics.median(m["VmRSS"] for m in memory),
        "peak, MB": statistics.median(m["VmHWM"] for m in memory),
    }


def first_embedding(engine: str, dtype: str, model: str, folder: str) -> Any:
    """Embed a text as one batch of one; return what holds the model."""
    if engine == "ufbert":
        import ufbert

        encoder = ufbert.SentenceEncoder(model, dtype=dtype)
        encoder.encode(TEXT)
        return encoder
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
    tokenizer.no_padding()
    ids = np.array([tokenizer.encode(TEXT).ids], np.int64)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    if engine == "ONNX Runtime":
        from onnxruntime import InferenceSession

        holder = InferenceSession(model, providers=["CPUExecutionProvider"])
        hidden = holder.run(None, batch)[0]
    elif engine == "OpenVINO":
        import openvino

        holder = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        hidden = holder(batch)[0]
    elif engine == "CTranslate2":
        import ctranslate2

        holder = ctranslate2.Encoder(model, compute_type=dtype)
        hidden = np.array(holder.forward_batch([tokenizer.encode(TEXT).tokens]).last_hidden_state)
    else:
        import torch
        from transformers import BertModel

        with torch.inference_mode():
            holder = BertModel.from_pretrained(model, add_pooling_layer=False)
            tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
            hidden = holder(**tensors).last_hidden_state.numpy()
    hidden.mean(1)
    return tokenizer, holder


if __name__ == "__main__":
    held = first_embedding(*sys.argv[1:])
    end = time.monotonic()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {key: int(status[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM")}
    print(json.dumps({"end": end, **sizes}))
