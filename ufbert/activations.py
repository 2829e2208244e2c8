"""Activation functions: one table of what computes each of them and of what others call it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks

__all__ = ["HUGGING_FACE", "IN_KERNELS", "TABLE", "TORCH", "Activation", "check_kernel_activation", "softmax"]

BLOCK = 65_536  # floats of a block that an elementwise chain keeps in L2
Array = NDArray[Any]
Function = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Activation:
    """One activation function. Called with an array of any shape, it gives float32 and may overwrite the array.

    Attributes
    ----------
    function : callable
        The function of a flat float32 array, which it may overwrite.
    kernel : int or None
        Its code in ``kernels/dtypes.h``; None if the kernels do not have it.
    derivative : callable or None
        Of those that the kernels have, in the dtype of its argument.
    exact : callable or None
        The definition, in the dtype of its argument; None if that is `function` itself.
    torch : str or None
        Class in ``torch.nn``.
    torch_arguments : mapping
        Arguments of that class.
    spellings : tuple of str
        Values of ``hidden_act`` in Hugging Face's ``config.json``.
    """

    function: Function
    kernel: int | None = None
    derivative: Function | None = None
    exact: Function | None = None
    torch: str | None = None
    torch_arguments: Mapping[str, str] = field(default_factory=dict)
    spellings: tuple[str, ...] = ()

    def __call__(self, x: Array) -> NDArray[np.float32]:
        """Apply the function block by block, so that each stays in the cache."""
        x = np.ascontiguousarray(x, np.float32)
        flat = x.reshape(-1)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            result = self.function(block)
            if result is not block:
                block[...] = result
        return x


_erf: Any = np.frompyfunc(math.erf, 1, 1)  # exact, and slow: one Python call an element


def _exact_gelu(x: Array) -> Array:
    y: Array = (0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)).astype(x.dtype))).astype(x.dtype)
    return y


def _gelu(x: Array) -> Array:
    """Exact GELU, ``x * Phi(x)`` = ``max(x, 0) - |x| * (1 - Phi(|x|))``, to 1e-7.

    The tail is formula 26.2.17 of Abramowitz and Stegun, Handbook of Mathematical Functions (error < 7.5e-8).
    """
    magnitude = np.abs(x)
    np.minimum(magnitude, np.float32(20), out=magnitude)  # the tail is 0 from 14 on; inf * 0 would be NaN
    t = 1 / (1 + np.float32(0.2316419) * magnitude)
    tail = np.full_like(t, 1.330274429)
    for coefficient in (-1.821255978, 1.781477937, -0.356563782, 0.319381530):
        tail *= t
        tail += np.float32(coefficient)
    tail *= t
    tail *= magnitude
    magnitude *= magnitude
    magnitude *= np.float32(-0.5)
    tail *= np.exp(magnitude, out=magnitude)
    tail *= np.float32(1 / math.sqrt(2 * math.pi))
    np.maximum(x, 0, out=x)
    x -= tail
    return x


def _gelu_derivative(x: Array) -> Array:
    cdf = 0.5 * (1.0 + _erf(x / math.sqrt(2.0)).astype(x.dtype))
    density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    slope: Array = (cdf + x * density).astype(x.dtype)
    return slope


def _gelu_tanh(x: Array) -> Array:
    """GELU with the tanh approximation. arXiv 1606.08415."""
    inner = x * x
    inner *= np.float32(0.044715)
    inner += 1
    inner *= x
    inner *= np.float32(math.sqrt(2 / math.pi))
    np.tanh(inner, out=inner)
    inner += 1
    x *= inner
    x *= np.float32(0.5)
    return x


def _relu(x: Array) -> Array:
    return np.maximum(x, 0)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        y: Array = np.reciprocal(1 + np.exp(-x))
    return y


def _silu(x: Array) -> Array:
    with np.errstate(over="ignore"):
        y: Array = np.divide(x, 1 + np.exp(-x))
    return y


def _silu_derivative(x: Array) -> Array:
    sigmoid = _sigmoid(x)
    slope: Array = sigmoid * (1.0 + x * (1.0 - sigmoid))
    return slope


def softmax(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Softmax over the last axis."""
    y: NDArray[np.float32] = np.exp(x - x.max(axis=-1, keepdims=True))
    y /= y.sum(axis=-1, keepdims=True)
    return y


TABLE: dict[str, Activation] = {
    "gelu": Activation(_gelu, 0, _gelu_derivative, _exact_gelu, torch="GELU", spellings=("gelu", "gelu_python")),
    "gelu_tanh": Activation(
        _gelu_tanh,
        torch="GELU",
        torch_arguments={"approximate": "tanh"},
        spellings=("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate"),
    ),
    "quick_gelu": Activation(lambda x: x * _sigmoid(np.float32(1.702) * x), spellings=("quick_gelu",)),
    "relu": Activation(_relu, 1, lambda x: (x > 0).astype(x.dtype), torch="ReLU", spellings=("relu",)),  # 0 at 0
    "silu": Activation(_silu, 2, _silu_derivative, torch="SiLU", spellings=("silu", "swish")),
    "mish": Activation(lambda x: x * np.tanh(np.logaddexp(x, np.float32(0))), torch="Mish", spellings=("mish",)),
    "tanh": Activation(np.tanh, 3, lambda x: 1.0 - np.tanh(x) ** 2, torch="Tanh", spellings=("tanh",)),
    "sigmoid": Activation(_sigmoid, torch="Sigmoid", spellings=("sigmoid",)),
    "leaky_relu": Activation(
        lambda x: np.maximum(x, np.float32(0.01) * x), torch="LeakyReLU", spellings=("leaky_relu",)
    ),
    "relu6": Activation(lambda x: np.clip(x, 0, 6), torch="ReLU6", spellings=("relu6",)),
    "elu": Activation(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), torch="ELU"),
    "softplus": Activation(lambda x: np.logaddexp(x, np.float32(0)), torch="Softplus"),
    "hardswish": Activation(lambda x: x * np.clip(x + 3, 0, 6) / np.float32(6), torch="Hardswish"),
    "identity": Activation(lambda x: x, torch="Identity", spellings=("linear",)),
}
"""All activation functions, by their names in this package."""

IN_KERNELS: dict[str, int] = {name: act.kernel for name, act in TABLE.items() if act.kernel is not None}
"""Those that the kernels have, and that an FFF may have: names to codes."""

HUGGING_FACE: dict[str, str] = {spelling: name for name, act in TABLE.items() for spelling in act.spellings}
"""``hidden_act`` of a ``config.json`` to our name."""

TORCH: dict[str, str] = {act.torch: name for name, act in TABLE.items() if act.torch and not act.torch_arguments}
"""Classes of ``torch.nn``, as the configurations of crammedBERT and sentence-transformers name them, to our name."""


def check_kernel_activation(name: object) -> int:
    """Return the kernels' code of an activation.

    Raises
    ------
    InputError
        If the kernels do not have it.
    """
    return IN_KERNELS[checks.choice(name, "activation", IN_KERNELS)]
