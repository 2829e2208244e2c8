"""``dtype="auto"``: the precision that a model runs in where the caller leaves the choice to this package.

The choice goes by the instruction set and by the kind of the model, never by a timing: the same model on the same kind
of CPU always runs in the same one.
"""

from __future__ import annotations

from typing import NamedTuple

from . import isa

__all__ = ["AUTO", "LEAST_COSINE", "Precision", "automatic"]

AUTO = "auto"
LEAST_COSINE = 0.99
"""What the lowest cosine of embeddings to those in float32 must stay above."""

# The fastest first, whole models; python bench/encoder.py bundled, on that instruction set. Others run in float32.
FASTEST = {
    "avx2": ("int8", "bfloat16"),
    "avx2vnni": ("int8", "bfloat16"),
    "avx512": ("int8", "bfloat16"),
    "avx512vnni": ("int8", "bfloat16"),
    "avx512bf16": ("int8", "bfloat16"),
    "neondot": ("int8",),
    "neonbf16": ("int8", "bfloat16"),
}
# The lowest cosines to float32 that were found among the bundled models' embeddings; docs/precision.md. Rounding sends
# some tokens down another path of a tree.
LOWEST_COSINES = {
    "dense": {"int8": 0.997, "bfloat16": 0.9999},
    "fff": {"int8": 0.985, "bfloat16": 0.991},
}
KINDS = {"dense": "dense layers", "fff": "trees"}


class Precision(NamedTuple):
    """What a model runs in.

    Attributes
    ----------
    dtype : str
        One of `ufbert.dense.DTYPES`.
    reason : str
        Why, in words.
    """

    dtype: str
    reason: str


def automatic(feed_forward: str) -> Precision:
    """Choose the fastest precision of this CPU whose lowest cosine to float32 stays above `LEAST_COSINE`.

    Parameters
    ----------
    feed_forward : str
        "fff" for a model with trees; all others count as dense.
    """
    name, kind = isa.active_isa(), "fff" if feed_forward == "fff" else "dense"
    refused = ""
    for dtype in FASTEST.get(name, ()):
        cosine = LOWEST_COSINES[kind][dtype]
        if cosine > LEAST_COSINE:
            return Precision(dtype, f"auto: fastest on {name}, lowest cosine {cosine} with {KINDS[kind]}{refused}")
        refused += f"; {dtype} has {cosine}"
    return Precision("float32", f"auto: fastest on {name}{refused}")
