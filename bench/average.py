"""The weighted mean of models: neighbouring ends of one training lie in one basin.

    python bench/average.py OUT WEIGHT=FOLDER WEIGHT=FOLDER ...

Copies the first folder, with the mean of all folders' weights as float16. Weights are relative. Only models that were
trained from one another make sense: trees of other beginnings do not match. One with fewer trees than the first, which
were added later, counts for the trees that it has.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ufbert.checkpoint.families import family_of
from ufbert.checkpoint.writing import new_folder

TREES = tuple(family_of("ufbert").encoder[key].split("{layer}")[1] for key in ("fff_in", "fff_out"))


def fits(name: str, tensor: np.ndarray, like: np.ndarray) -> bool:
    smaller = tensor.ndim == like.ndim and all(a <= b for a, b in zip(tensor.shape, like.shape, strict=True))
    return tensor.shape == like.shape or (smaller and any(stem in name for stem in TREES))


def widened(tensor: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The tensor as float32, with what `like` has beyond its shape: trees follow one another."""
    wide = like.astype(np.float32)
    wide[tuple(slice(size) for size in tensor.shape)] = tensor
    return wide


def main() -> None:
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    out = Path(sys.argv[1])
    shares = {Path(folder): float(weight) for weight, folder in (pair.split("=", 1) for pair in sys.argv[2:])}
    models = {folder: load_file(folder / "model.safetensors") for folder in shares}
    first, total = next(iter(models.values())), sum(shares.values())
    for folder, model in models.items():
        if model.keys() != first.keys() or not all(fits(name, model[name], first[name]) for name in first):
            raise SystemExit(f"{folder}: expected tensors with the first model's names and shapes, found others")
    mean = {
        name: sum(share / total * widened(models[folder][name], first[name]) for folder, share in shares.items())
        for name in first
    }
    with new_folder(out) as complete:
        shutil.copytree(next(iter(shares)), complete, dirs_exist_ok=True)
        save_file({name: tensor.astype(np.float16) for name, tensor in mean.items()}, complete / "model.safetensors")


if __name__ == "__main__":
    main()
