"""What `ufbert._dense`, the compiled dense kernels, offers. Nothing here is checked: `ufbert.dense` does that."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._cmm import PackedLayer

_Floats = NDArray[np.float32]
_Longs = NDArray[np.int64]
_Bytes = NDArray[np.uint8]
_Norm = tuple[_Floats, _Floats, float]

NO_ACTIVATION: int
BEHIND_DISTANCES: int

class PackedPanels:
    nbytes: int
    def __init__(
        self,
        weight: tuple[NDArray[Any], ...] | None,
        bias: _Floats | None,
        activation: int,
        dtype: str,
        num_threads: int,
        scale: _Floats | None = None,
        stored: tuple[str, int, int, bytes] | None = None,
    ) -> None: ...
    def forward(self, x: _Floats, residual: _Floats | None, num_threads: int, y: _Floats) -> None: ...

class CompiledLayer:
    def __init__(
        self,
        query_key_value: PackedPanels,
        output: PackedPanels,
        feed_forward: tuple[PackedPanels, PackedPanels] | tuple[PackedLayer, _Floats | None],
        norm1: _Norm | None,
        norm2: _Norm,
        num_heads: int,
        scale: float,
        pre: bool,
        distance_bias: _Floats | None,
        rotations: _Floats | None,
        window: int,
        gate: int | None,
    ) -> None: ...
    def forward(
        self,
        x: _Floats,
        cu_seqlens: _Longs,
        attended: _Bytes | None,
        longest: int,
        groups: _Longs,
        largest: int,
        by_columns: bool,
        num_threads: int,
        y: _Floats,
    ) -> None: ...

def attention(
    qkv: _Floats,
    cu_seqlens: _Longs,
    num_heads: int,
    scale: float,
    attended: _Bytes | None,
    distance_bias: _Floats | None,
    rotations: _Floats | None,
    window: int,
    num_threads: int,
    context: _Floats,
) -> None: ...
def layer_norm(x: _Floats, weight: _Floats, bias: _Floats, eps: float, num_threads: int, y: _Floats) -> None: ...
def gate(x: _Floats, activation: int, num_threads: int, y: _Floats) -> None: ...
