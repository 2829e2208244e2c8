"""What `ufbert._cmm`, the compiled FFF kernels, offers. Nothing here is checked: `ufbert.cmm` does that."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
_Ints = NDArray[np.int32]
_Rows = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8]

ACTIVATIONS: dict[str, int]
DTYPES: dict[str, int]
MAX_DEPTH: int

def compiled_isas() -> list[str]: ...
def supported_isas() -> list[str]: ...
def active_isa() -> str: ...
def use_isa(name: str) -> None: ...
def fff_forward(
    x: _Floats,
    w_in: _Floats,
    b_in: _Floats,
    w_out: _Floats,
    depth: int,
    activation: int,
    num_threads: int,
    y: _Floats,
    path: _Ints | None,
    scores: _Floats | None,
) -> None: ...
def fff_backward(
    dy: _Floats,
    x: _Floats,
    w_in: _Floats,
    b_in: _Floats,
    w_out: _Floats,
    depth: int,
    path: _Ints,
    scores: _Floats,
    activation: int,
    num_threads: int,
    dx: _Floats,
    dw_in: _Floats,
    db_in: _Floats,
    dw_out: _Floats,
    tried: _Ints | None = ...,
    out_squares: _Floats | None = ...,
    switch_costs: _Floats | None = ...,
) -> None: ...
def leaf_fff_forward(
    x: _Floats,
    node_weights: _Floats,
    node_biases: _Floats,
    w1s: _Floats,
    b1s: _Floats,
    w2s: _Floats,
    b2s: _Floats | None,
    depth: int,
    activation: int,
    num_threads: int,
    y: _Floats,
) -> None: ...

class PackedLayer:
    nbytes: int
    def __init__(
        self,
        w_in: _Rows,
        b_in: _Floats,
        w_out: _Rows,
        depth: int,
        activation: int,
        dtype: str,
        scales_in: _Floats | None = ...,
        scales_out: _Floats | None = ...,
        columns_out: _Floats | None = ...,
        stored: tuple[int, int, int, int, bool, bytes] | None = ...,
        num_threads: int = ...,
    ) -> None: ...
    def forward_checked(
        self,
        x: object,
        out: object,
        num_threads: int | None,
        threads_for: Callable[[int, int | None], int],
        serial_below: int,
    ) -> _Floats | None: ...
    def forward(self, x: _Floats, num_threads: int, y: _Floats, path: _Ints | None, scores: _Floats | None) -> None: ...

def set_spinning(within: int, between: int) -> None: ...
