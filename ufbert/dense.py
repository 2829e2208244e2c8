"""Linear layers, attention, layer norm and whole encoder layers: the checked door to the dense kernels.

Where the compiled kernels are, every output element is one chain of additions in a fixed order, so a token's result
does not depend on the batch around it, on its order or on the number of threads. Where they are missing, NumPy
computes (`ufbert.reference`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, isa, reference
from .activations import IN_KERNELS, TABLE
from .batch import Batch
from .cmm import PackedFFF
from .errors import InputError
from .int8 import Int8Matrix
from .stored import StoredMatrix
from .threads import threads_for

__all__ = ["DTYPES", "FusedLayer", "Linear", "attention", "gate", "is_available", "layer_norm"]

DTYPES = ("float32", "bfloat16", "int8")
# How many dense multiply-adds cost as much as one in a tree walk, which `threads.SERIAL_BELOW` counts. Measured on one
# short text of MiniLM. AVX-512: a second thread pays if the work takes 80 microseconds or more. AVX2: from 20 on.
CHEAPER = {"float32": 25, "bfloat16": 50, "int8": 100}
CHEAPER_AVX2 = 8
Floats = NDArray[np.float32]
NormWeights = tuple[Floats, Floats | None, float]  # a layer norm's weight, bias and eps


def _cheaper(dtype: str) -> int:
    return CHEAPER_AVX2 if isa.active_isa().startswith("avx2") else CHEAPER[dtype]


def is_available() -> bool:
    """Whether the compiled kernels are there. Without them, layers cannot be packed and NumPy computes in float32."""
    return isa.dense_kernels is not None


class Linear:
    """Linear layer with an activation: ``activation(x @ weight.T + bias) + residual``.

    It is plain, with arrays that NumPy multiplies, or packed for the kernels in one of three precisions.

    Parameters
    ----------
    weight : (O, I) array, Int8Matrix or StoredMatrix
        Packed in "int8", a matrix in 8 bits keeps its values and its factors.
    bias : (O,) array, optional
    activation : str, optional
        A key of `ufbert.activations.TABLE`. Those that the kernels have run inside the multiplication.
    dtype : {"float32", "bfloat16", "int8"}, optional
        None: plain. Else the precision of the packed weights; the layer keeps no others. "bfloat16": weights and
        inputs are rounded to bfloat16, sums are float32. "int8": weights are rounded to 8 bits with a scale for each
        output, inputs at each call with a scale and an offset for each row; sums are exact.

    Attributes
    ----------
    shape : (int, int)
        O and I.
    weight : array, Int8Matrix, StoredMatrix or None
    bias : array or None
        Of a plain layer; None once it is packed.
    packed : object or None
        The weights in the kernels' layout; None if it is plain.
    activation, dtype : str or None
    row_work : float
        Cost of one row in the kernel, in multiply-adds of a tree walk.

    Raises
    ------
    InputError
        If a shape or an argument does not fit.
    """

    def __init__(
        self,
        weight: ArrayLike | Int8Matrix | StoredMatrix,
        bias: ArrayLike | None = None,
        activation: str | None = None,
        dtype: str | None = None,
    ) -> None:
        if not isinstance(weight, (Int8Matrix, StoredMatrix)):
            weight = checks.array(weight, "weight", 2)
        if bias is not None:
            bias = checks.shaped(bias, "bias", weight.shape[:1], "(O,)")
        if activation is not None:
            checks.choice(activation, "activation", TABLE)
        self.shape = weight.shape[0], weight.shape[1]
        self.weight: Floats | Int8Matrix | StoredMatrix | None = weight
        self.bias: Floats | None = bias
        self.activation, self.dtype = activation, dtype
        self.packed: Any = None
        self.row_work = 0.0
        if dtype is not None:
            self._pack(weight, bias, checks.choice(dtype, "dtype", DTYPES))

    def _pack(self, weight: Floats | Int8Matrix | StoredMatrix, bias: Floats | None, dtype: str) -> None:
        if isa.dense_kernels is None:
            raise InputError(f"dtype: expected None, for there are no compiled kernels, got {dtype}; install them")
        if 0 in weight.shape:
            raise InputError(f"weight: expected no empty axis, got shape {weight.shape}; leave the layer plain")
        size = self.shape[0] * self.shape[1]
        pieces: tuple[NDArray[Any], ...]
        scale = None
        if dtype == "int8" and isinstance(weight, Int8Matrix) and weight.columns is None:
            pieces, scale = (weight.values,), weight.scale
        else:
            pieces = weight.pieces if isinstance(weight, StoredMatrix) else (weight[:],)
        code = IN_KERNELS.get(self.activation or "", isa.dense_kernels.NO_ACTIVATION)
        self.packed = isa.dense_kernels.PackedPanels(pieces, bias, code, dtype, threads_for(size, None), scale)
        self.row_work = size / _cheaper(dtype)
        self.weight = self.bias = None

    def pack(self, dtype: str) -> Linear:
        """Return the layer packed for the kernels; itself where there is nothing to pack, or where NumPy computes."""
        if self.weight is None or 0 in self.shape or not is_available():
            return self
        return Linear(self.weight, self.bias, self.activation, dtype)

    @property
    def is_fused(self) -> bool:
        """Whether it is packed and its activation, if any, runs inside the kernel."""
        return self.packed is not None and (self.activation is None or self.activation in IN_KERNELS)

    @property
    def nbytes(self) -> int:
        """Memory of the weights and the bias."""
        arrays: tuple[Any, ...] = (self.packed, self.weight, self.bias)
        return sum(array.nbytes for array in arrays if array is not None)

    def __call__(
        self,
        x: ArrayLike,
        residual: ArrayLike | None = None,
        *,
        num_threads: int | None = None,
        out: Floats | None = None,
    ) -> Floats:
        """Apply the layer: (T, I) float32, and residual (T, O) or None -> (T, O) float32.

        `out`, if given, is where the result is written: (T, O) float32, C-contiguous, no part of the others.
        """
        x = checks.rows(x, "x", self.shape[1])
        if residual is not None:
            residual = checks.shaped(residual, "residual", (len(x), self.shape[0]), "(T, O)")
        if out is not None:
            checks.output(out, (len(x), self.shape[0]), x=x, residual=residual)
        if self.is_fused:
            return self._multiply(x, residual, num_threads, out)
        y = self._multiply(x, None, num_threads, None)
        if self.activation is not None:
            y = TABLE[self.activation](y)
        if residual is not None:
            return np.add(y, residual, out=y if out is None else out)
        if out is None:
            return y
        out[...] = y
        return out

    def _multiply(self, x: Floats, residual: Floats | None, num_threads: int | None, out: Floats | None) -> Floats:
        """What the kernel does; without one, the multiplication alone."""
        if self.packed is None:
            assert self.weight is not None  # what is not packed is plain
            return reference.linear(x, self.weight[:], self.bias)
        y = np.empty((len(x), self.shape[0]), np.float32) if out is None else out
        if len(x):
            self.packed.forward(x, residual, threads_for(int(len(x) * self.row_work), num_threads), y)
        return y

    def __repr__(self) -> str:
        words = [f"{self.shape[1]} -> {self.shape[0]}", self.activation, self.dtype or "plain"]
        return f"Linear({', '.join(word for word in words if word)})"


class FusedLayer:
    """A whole encoder layer in one call: its packed parts, run group by group of texts while they are in the cache.

    Parameters
    ----------
    query_key_value, output : Linear
        Packed, as all linear layers here.
    feed_forward : (Linear, Linear) or (PackedFFF, (H,) array or None)
    norm1, norm2 : (weight, bias, eps)
        Layer norms; the first may be None where they come before attention and feed-forward.
    num_heads : int
    scale : float
        Factor of the attention scores.
    norm_position : {"pre", "post"}
    distance_bias, rotations : array, optional
    window : int, optional
        See `ufbert.reference.attention`.
    gate : str, optional
        Activation of a gated layer's gates, one that the kernels have; see `ufbert.dense.gate`.

    Notes
    -----
    The same bits as the parts one after another. `ufbert.checkpoint.pack` knows which layers can be fused.
    """

    def __init__(
        self,
        query_key_value: Linear,
        output: Linear | None,
        feed_forward: tuple[Linear, Linear] | tuple[PackedFFF, Floats | None],
        *,
        norm1: NormWeights | None,
        norm2: NormWeights,
        num_heads: int,
        scale: float,
        norm_position: str,
        distance_bias: Floats | None = None,
        rotations: Floats | None = None,
        window: int | None = None,
        gate: str | None = None,
    ) -> None:
        positions: dict[str, Any] = {"distance_bias": distance_bias, "rotations": rotations, "window": window}
        settings: dict[str, Any] = {"num_heads": num_heads, "scale": scale, "norm_position": norm_position}
        options: dict[str, Any] = {"norm1": norm1, "norm2": norm2, "gate": gate, **settings, **positions}
        self._arguments = (query_key_value, output, feed_forward), options
        if output is None or any(norm is not None and norm[1] is None for norm in (norm1, norm2)):
            raise InputError(
                "FusedLayer: expected an output projection and layer norms with a bias, found them missing"
            )
        if norm1 is None and norm_position != "pre":
            raise InputError(f"norm1: expected a layer norm in a layer with norm_position {norm_position}, got None")
        first, second = feed_forward
        parts = [query_key_value, output, first, *([second] if isinstance(second, Linear) else [])]
        for part in parts:
            if part.packed is None or (isinstance(part, Linear) and not part.is_fused):
                raise InputError(f"FusedLayer: expected packed parts that the kernels can run whole, got {part}")
        self.width = output.shape[0]
        self.row_work = sum(part.row_work for part in parts)
        if isinstance(first, Linear) and isinstance(second, Linear):
            neurons = second.shape[1] * (1 if gate is None else 2)
            if first.shape[0] != neurons:
                raise InputError(f"FusedLayer: expected {neurons} outputs of the first linear layer, got {first}")
        tree_bias = None if second is None or isinstance(second, Linear) else checks.array(second, "bias", 1)
        packed = first.packed, second.packed if isinstance(second, Linear) else tree_bias
        norms = [
            norm and (checks.array(norm[0], "norm", 1), checks.array(norm[1], "norm", 1), norm[2])
            for norm in (norm1, norm2)
        ]
        bias, rotations, self.max_length = _positions(distance_bias, rotations, num_heads, self.width // num_heads)
        self._kernel = isa.dense_kernels.CompiledLayer(
            query_key_value.packed,
            output.packed,
            packed,
            *norms,
            num_heads,
            scale,
            norm_position == "pre",
            None if bias is None else _behind(bias),
            rotations,
            _window(window),
            None if gate is None else IN_KERNELS[checks.choice(gate, "gate", IN_KERNELS)],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Of the parts, which the kernel only points to, and the settings."""
        parts, options = self._arguments
        return partial(FusedLayer, **options), parts

    def __call__(self, x: ArrayLike, batch: Batch, *, num_threads: int | None = None) -> Floats:
        """Apply the layer to the tokens of a batch: (T, H) float32 -> (T, H) float32."""
        x = checks.rows(x, "x", self.width)
        if len(x) != batch.num_tokens:
            raise InputError(f"x: expected a row for each of the batch's {batch.num_tokens} tokens, got {len(x)}")
        _check_lengths(batch.max_length, self.max_length)
        y = np.empty_like(x)
        if len(x):
            count = threads_for(int(len(x) * self.row_work), num_threads)
            attended = None if batch.attended is None else np.ascontiguousarray(batch.attended).view(np.uint8)
            self._kernel.forward(x, batch.cu_seqlens, attended, batch.max_length, *batch.plan(count), count, y)
        return y


def _texts(
    cu_seqlens: NDArray[Any], attended: NDArray[Any] | None, tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8] | None]:
    """The two as the kernels take them, checked."""
    cu_seqlens = np.ascontiguousarray(cu_seqlens, np.int64)
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens or (cu_seqlens[1:] < cu_seqlens[:-1]).any():
        raise InputError(f"cu_seqlens: expected to cut {tokens} tokens into texts, got {cu_seqlens}")
    if attended is not None:
        attended = np.ascontiguousarray(attended, np.uint8)
        checks.shape(attended, "attended", (tokens,), "(T,)")
    return cu_seqlens, attended


def _positions(
    distance_bias: ArrayLike | None, rotations: ArrayLike | None, num_heads: int, head_size: int
) -> tuple[Floats | None, Floats | None, int | None]:
    """What attention does by positions, checked, and how many tokens a text may have by it; None for any number."""
    limits = []
    if distance_bias is not None:
        distance_bias = checks.array(distance_bias, "distance_bias", 2)
        if len(distance_bias) != num_heads or distance_bias.shape[1] % 2 == 0:
            raise InputError(f"distance_bias: expected ({num_heads}, 2R + 1), got shape {distance_bias.shape}")
        limits.append(distance_bias.shape[1] // 2 + 1)
    if rotations is not None:
        rotations = checks.array(rotations, "rotations", 2)
        if rotations.shape[1] != head_size or head_size % 2:
            raise InputError(f"rotations: expected (positions, {head_size}), an even number, got {rotations.shape}")
        limits.append(len(rotations))
    return distance_bias, rotations, min(limits, default=None)


def _window(window: int | None) -> int:
    """The distance from which on the kernels leave keys out; 0 for none."""
    return 0 if window is None else checks.integer(window, "window", 0, 2**31) + 1


def _check_lengths(longest: int, max_length: int | None) -> None:
    if max_length is not None and longest > max_length:
        raise InputError(f"positions: expected texts of up to {max_length} tokens, got one of {longest}")


def _behind(bias: Floats) -> Floats:
    """A distance bias with what the kernels may read behind each head's."""
    return np.pad(bias, ((0, 0), (0, isa.dense_kernels.BEHIND_DISTANCES)))


def attention(
    qkv: ArrayLike,
    cu_seqlens: NDArray[Any],
    num_heads: int,
    scale: float,
    attended: NDArray[Any] | None = None,
    distance_bias: ArrayLike | None = None,
    rotations: ArrayLike | None = None,
    window: int | None = None,
    *,
    num_threads: int | None = None,
) -> Floats:
    """Softmax attention of each text on itself; see `ufbert.reference.attention`, whose arguments these are."""
    qkv = checks.array(qkv, "qkv", 2)
    if qkv.shape[1] % (3 * num_heads):
        raise InputError(f"qkv: expected (T, 3 * heads * size) with {num_heads} heads, got shape {qkv.shape}")
    context = np.empty((len(qkv), qkv.shape[1] // 3), np.float32)
    if not len(qkv):
        return context
    cu_seqlens, attended = _texts(cu_seqlens, attended, len(qkv))
    lengths = np.diff(cu_seqlens)
    bias, turns, max_length = _positions(distance_bias, rotations, num_heads, context.shape[1] // num_heads)
    _check_lengths(int(lengths.max()), max_length)
    beyond = _window(window)
    if isa.dense_kernels is None:
        return reference.attention(qkv, cu_seqlens, num_heads, scale, attended, bias, turns, window)
    qkv = qkv if turns is None else qkv.copy()  # the kernel turns queries and keys in place
    near = np.minimum(lengths, 2 * beyond - 1) if beyond else lengths
    work = int(2 * lengths @ near) * context.shape[1] // _cheaper("float32")
    bias = None if bias is None else _behind(bias)
    count = threads_for(work, num_threads)
    isa.dense_kernels.attention(qkv, cu_seqlens, num_heads, scale, attended, bias, turns, beyond, count, context)
    return context


def gate(x: ArrayLike, activation: str, *, num_threads: int | None = None) -> Floats:
    """``activation(gate) * value``: (T, 2I), values and then gates -> (T, I)."""
    x = checks.array(x, "x", 2)
    checks.choice(activation, "activation", TABLE)
    if x.shape[1] % 2:
        raise InputError(f"x: expected (T, 2I), values and then gates, got shape {x.shape}")
    if isa.dense_kernels is None or activation not in IN_KERNELS:
        value, gates = np.split(x, 2, axis=-1)
        return TABLE[activation](gates.copy()) * value
    y = np.empty((len(x), x.shape[1] // 2), np.float32)
    if y.size:
        isa.dense_kernels.gate(x, IN_KERNELS[activation], threads_for(8 * x.size, num_threads), y)
    return y


def layer_norm(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike, eps: float, *, num_threads: int | None = None
) -> Floats:
    """Layer normalisation over the last axis: (T, H) -> (T, H); see `ufbert.reference.layer_norm`."""
    x = checks.array(x, "x", 2)
    weight, bias = (
        checks.shaped(weight, "weight", x.shape[1:], "(H,)"),
        checks.shaped(bias, "bias", x.shape[1:], "(H,)"),
    )
    if isa.dense_kernels is None:
        return reference.layer_norm(x, weight, bias, eps)
    y = np.empty_like(x)
    if x.size:
        isa.dense_kernels.layer_norm(x, weight, bias, eps, threads_for(8 * x.size, num_threads), y)
    return y
