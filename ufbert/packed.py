"""A fast feedforward layer whose weights are laid out for the kernels once."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _door, reference
from .errors import InputError

__all__ = ["PackedFFF"]

WEIGHT_DTYPES = ("float32", "bfloat16")


class PackedFFF:
    """Fast feedforward layer of UltraFastBERT with packed weights: what a model keeps and calls.

    Parameters
    ----------
    w_in : (P, n, H) array
        Input rows of P trees with n = 2**(depth + 1) - 1 nodes in heap order.
    b_in : (P, n) array
        Input biases; always kept as float32.
    w_out : (P, n, H_out) array
        Output rows.
    depth : int
        Levels below the root, 0 to 24.
    weight_dtype : {"float32", "bfloat16"}
        How `w_in` and `w_out` are kept. bfloat16 rounds them to nearest even and halves the memory; inputs,
        sums and outputs are float32 all the same.
    activation : {"gelu", "relu", "silu", "tanh"}
        "gelu" is the exact one, with erf.

    Attributes
    ----------
    num_trees, num_nodes, depth, width_in, width_out : int
    weight_dtype, activation : str
    nbytes : int
        Memory of the packed weights. The arrays that were passed are not kept.

    Raises
    ------
    InputError
        If a shape, a dtype or another argument does not fit.
    MemoryError
        If there is no memory for the packed weights.

    Notes
    -----
    float32 results are the same bits as `ufbert.cmm.fff_forward`'s on the same instruction set. Rows begin at
    cache lines, and on Linux the weights are on huge pages where the system grants them.
    """

    def __init__(
        self, w_in: Any, b_in: Any, w_out: Any, depth: int, weight_dtype: str = "float32", activation: str = "gelu"
    ) -> None:
        self.depth = _door.checked_depth(depth)
        if weight_dtype not in WEIGHT_DTYPES:
            raise InputError(
                f"weight_dtype: expected one of {', '.join(WEIGHT_DTYPES)}, got {weight_dtype!r}; choose one of these"
            )
        _door.check_activation(activation)
        w_in, b_in, w_out = _door.layer_arrays(w_in, b_in, w_out, self.depth)
        self.weight_dtype, self.activation = weight_dtype, activation
        self.num_trees, self.num_nodes, self.width_in = w_in.shape
        self.width_out = w_out.shape[2]
        self._work = self.num_trees * (self.depth + 1) * (self.width_in + self.width_out)
        self._serial_tokens = (_door.SERIAL_BELOW - 1) // max(1, self._work)
        self._layer = self._plain = None
        if _door._cmm is None or min(self.num_trees, self.width_in, self.width_out) == 0:
            rounded = reference.round_to_bfloat16 if weight_dtype == "bfloat16" else np.copy
            self._plain = (rounded(w_in), b_in.copy(), rounded(w_out))
            self.nbytes = sum(array.nbytes for array in self._plain)
        else:
            code = _door._cmm.ACTIVATIONS[activation]
            self._layer = _door._cmm.PackedLayer(w_in, b_in, w_out, self.depth, code, weight_dtype == "bfloat16")
            self.nbytes = self._layer.nbytes

    def __call__(
        self,
        x: Any,
        num_threads: int | None = None,
        return_path: bool = False,
        out: np.ndarray | None = None,
        return_scores: bool = False,
    ) -> Any:
        """Compute the layer.

        Parameters
        ----------
        x : (T, H) array
            Tokens.
        num_threads : int, optional
            Threads at most; None for `ufbert.threads.get_num_threads`. The result does not depend on it.
        return_path, return_scores : bool
            Also return the visited nodes and their scores.
        out : (T, H_out) float32 array, optional
            Where to write y: C-contiguous, and no part of `x`. For large batches this saves the system the
            clearing of new pages, which costs as much as the layer itself.

        Returns
        -------
        y : (T, H_out) float32 array
            `out` if it was given.
        path : (T, P, depth + 1) int32 array
            Only if `return_path`.
        scores : (T, P, depth + 1) float32 array
            Only if `return_scores`.

        Raises
        ------
        InputError
            If `x`, `out` or `num_threads` does not fit.
        """
        usual = not (return_path or return_scores) and self._layer is not None
        if usual and (num_threads is None or (type(num_threads) is int and num_threads > 0)):
            y = self._layer.forward_alone(x, out, self._serial_tokens)
            if y is not None:
                return y
        x = _door.tokens_array(x, self.width_in)
        y = _door.output_array(out, x, self.width_out)
        num_threads = _door.num_threads_for(len(x) * self._work, num_threads)
        shape = (len(x), self.num_trees, self.depth + 1)
        path = np.empty(shape, np.int32) if return_path else None
        scores = np.empty(shape, np.float32) if return_scores else None
        if self._layer is None:
            self._walk(x, y, path, scores)
        elif len(x):
            self._layer.forward(x, num_threads, y, path, scores)
        if path is None and scores is None:
            return y
        return tuple(array for array in (y, path, scores) if array is not None)

    def _walk(self, x: np.ndarray, y: np.ndarray, path: np.ndarray | None, scores: np.ndarray | None) -> None:
        """Without kernels, or with an empty axis."""
        results = reference.fff_walk(
            x, *self._plain, self.depth, return_path=True, return_scores=True, activation=self.activation
        )
        for array, result in zip((y, path, scores), results, strict=True):
            if array is not None:
                array[...] = result

    def __repr__(self) -> str:
        return (
            f"PackedFFF({self.num_trees}x{self.depth}, {self.width_in} -> {self.width_out}, {self.weight_dtype}, "
            f"{self.activation})"
        )
