"""What the bundled models gave when they were bundled: one JSON file a model beside this one.

``python tests/pinned/measure.py`` writes the files anew for the models that ``ufbert-weights`` has. Do that when a
model is bundled, and look at the difference. ``tests/test_weights.py`` fails when a model gives less than its
file says.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import ufbert_weights
from safetensors.numpy import load_file

import ufbert

FOLDER = Path(__file__).parent
GOLDEN = FOLDER.parent / "golden" / "all-minilm-l6-v2"
OPINIONS = {
    "A charming, funny and moving film.": "positive",
    "A tedious mess with wooden acting.": "negative",
    "I loved every minute of it.": "positive",
    "The plot makes no sense and the jokes fall flat.": "negative",
}


def measure(name: str) -> dict[str, object]:
    """Measure a bundled model.

    Returns
    -------
    dict
        Of an encoder, for each dtype: mean and lowest cosine to the original all-MiniLM-L6-v2, on ordinary sentences
        and on odd texts (long, foreign, symbols). Of a classifier: the lowest probability of a right label.
    """
    folder = ufbert_weights.path(name)
    if not (folder / "modules.json").exists():
        results = ufbert.TextClassifier(folder)(list(OPINIONS), top_k=None)
        right = [
            next(found["score"] for found in result if found["label"] == label)
            for result, label in zip(results, OPINIONS.values(), strict=True)
        ]
        return {"lowest_probability": round(min(right), 4)}
    config = ufbert.load(folder).config
    layer = {"feed_forward": config.feed_forward}
    if config.feed_forward == "fff":
        layer |= {"num_trees": config.num_trees, "depth": config.depth}
    return {**layer, "cosine": {dtype: _cosines(name, dtype) for dtype in ("float32", "bfloat16", "int8")}}


def _cosines(name: str, dtype: str) -> dict[str, dict[str, float]]:
    encoder = ufbert.SentenceEncoder(name, dtype=dtype)
    odd = (GOLDEN / "texts.txt").read_text(encoding="utf-8").split("\n")[:-1]
    plain = (FOLDER.parents[1] / "examples" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    pairs = {
        "sentences": (encoder.encode(plain), ufbert.SentenceEncoder("all-MiniLM-L6-v2").encode(plain)),
        "odd texts": (encoder.encode(odd), load_file(GOLDEN / "expected.safetensors")["embeddings"]),
    }
    found = {}
    for kind, (first, second) in pairs.items():
        lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        cosines = np.einsum("nd,nd->n", first, second) / lengths
        found[kind] = {"mean": round(float(cosines.mean()), 4), "lowest": round(float(cosines.min()), 4)}
    return found


def main() -> None:
    """Write the files of all bundled models, and remove those of models that are no longer bundled."""
    for file in FOLDER.glob("*.json"):
        file.unlink()
    for name in ufbert_weights.names():
        (FOLDER / f"{name}.json").write_text(json.dumps(measure(name), indent=1) + "\n")
        print(name)


if __name__ == "__main__":
    main()
