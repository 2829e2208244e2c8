"""The weighted mean of models of one shape: neighbouring ends of one training lie in one basin.

    python bench/average.py OUT WEIGHT=FOLDER WEIGHT=FOLDER ...

Copies the first folder, with the mean of all folders' weights as float16. Weights are relative. Only models that were
trained from one another make sense: trees of other beginnings do not match.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ufbert.checkpoint.writing import new_folder


def main() -> None:
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    out = Path(sys.argv[1])
    shares = {Path(folder): float(weight) for weight, folder in (pair.split("=", 1) for pair in sys.argv[2:])}
    models = {folder: load_file(folder / "model.safetensors") for folder in shares}
    first, total = next(iter(models.values())), sum(shares.values())
    for folder, model in models.items():
        shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (first, model)]
        if shapes[0] != shapes[1]:
            raise SystemExit(f"{folder}: expected tensors with the first model's names and shapes, found others")
    mean = {
        name: sum(share / total * models[folder][name].astype(np.float32) for folder, share in shares.items())
        for name in first
    }
    with new_folder(out) as complete:
        shutil.copytree(next(iter(shares)), complete, dirs_exist_ok=True)
        save_file({name: tensor.astype(np.float16) for name, tensor in mean.items()}, complete / "model.safetensors")


if __name__ == "__main__":
    main()
