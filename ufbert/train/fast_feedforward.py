"""The fast feedforward layer of UltraFastBERT as a module, on the kernels or on any device of PyTorch."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import checks
from ..errors import InputError
from .walk import ACTIVATIONS, KernelWalk, PlainWalk, Trees

__all__ = ["FastFeedForward"]


class FastFeedForward(nn.Module):
    """Binary trees of neurons; a token visits one path in each.

    On the CPU forward and backward run on the kernels and visit depth + 1 nodes of each tree; on other devices they
    multiply with every node and gather the visited ones.

    Parameters
    ----------
    hidden_size : int
        Width of input and output, H.
    num_trees : int
        P, at least 1.
    depth : int
        Levels below the root, 0 to 24. A tree has n = 2**(depth + 1) - 1 nodes in heap order.
    activation : {"gelu", "relu", "silu", "tanh"}
        "gelu" is the exact one, with erf.
    output_bias : bool
        Learn a bias of the output, which the authors' layer does not have.
    decision_gradient : bool
        Let decisions learn too, from the paths that a token did not take. The kernels take one level of each tree,
        drawn with PyTorch's generator for each backward pass; the plain walk takes all levels. The authors' training
        code does not.
    switch_cost : float
        With `decision_gradient`: see `ufbert.cmm.fff_backward`.
    plain : bool
        Walk in plain PyTorch on the CPU too.

    Attributes
    ----------
    linear_in : torch.nn.Linear
        weight (P * n, H) and bias (P * n,): the authors' names and layout, tree after tree.
    linear_out : torch.nn.Linear
        weight (H, P * n); in memory a node's output row is contiguous. bias (H,) with `output_bias`.
    path : (T, P, depth + 1) int32 array or int64 tensor, or None
        Nodes that the last forward pass visited, T being all leading axes together. The plain walk gives tensors.
    scores : (T, P, depth + 1) float32 array or tensor, or None
        Their scores.

    Raises
    ------
    InputError
        If an argument does not fit.

    Notes
    -----
    Without `decision_gradient`, gradients flow through the activations of visited nodes alone. Parameters are float32.
    On the CPU the input is taken as float32 under autocast too, and results and gradients do not depend on the number
    of threads. On other devices autocast makes scores float16 and gradients bfloat16. arXiv 2311.10770.
    """

    def __init__(
        self,
        hidden_size: int,
        num_trees: int,
        depth: int,
        activation: str = "gelu",
        output_bias: bool = False,
        decision_gradient: bool = False,
        switch_cost: float = 0.2,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.hidden_size = checks.integer(hidden_size, "hidden_size", 1, 2**20)
        self.num_trees = checks.integer(num_trees, "num_trees", 1, 2**22)
        self.depth = checks.depth(depth)
        self.activation = checks.choice(activation, "activation", ACTIVATIONS)
        self.decision_gradient, self.switch_cost, self.plain = decision_gradient, switch_cost, plain
        neurons = num_trees * self.num_nodes
        self.linear_in = nn.Linear(hidden_size, neurons)
        self.linear_out = nn.Linear(neurons, hidden_size, bias=output_bias)
        # Transposed in memory: the kernels read and update a node's output row in one piece, without a copy.
        self.linear_out.weight = nn.Parameter(self.linear_out.weight.detach().t().contiguous().t())
        self.path: NDArray[np.int32] | Tensor | None = None
        self.scores: NDArray[np.float32] | Tensor | None = None
        self.reset_parameters()

    @property
    def num_nodes(self) -> int:
        """Nodes of one tree, n."""
        return 2 ** (self.depth + 1) - 1

    def reset_parameters(self) -> None:
        """Draw weights anew: uniform, with the authors' bounds 1/sqrt(H) in and 1/sqrt(visited neurons) out."""
        bound = 1 / math.sqrt(self.hidden_size)
        nn.init.uniform_(self.linear_in.weight, -bound, bound)
        nn.init.uniform_(self.linear_in.bias, -bound, bound)
        bound = 1 / math.sqrt(self.num_trees * (self.depth + 1))
        nn.init.uniform_(self.linear_out.weight, -bound, bound)
        if self.linear_out.bias is not None:
            nn.init.zeros_(self.linear_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (..., H) float -> (..., H), visiting depth + 1 nodes of each tree for each token.

        On the CPU the result is float32.
        """
        self._check(x)
        weights = (self.linear_in.weight, self.linear_in.bias, self.linear_out.weight.t())
        decides = self.decision_gradient and self.depth > 0
        trees = Trees(self.num_trees, self.depth, self.activation, decides, self.switch_cost)
        flat = x.reshape(-1, self.hidden_size).float()
        if x.device.type == "cpu" and not self.plain:
            y, self.path, self.scores = KernelWalk.apply(flat, *weights, trees)
        else:
            low = x.device.type != "cpu" and torch.is_autocast_enabled(x.device.type)
            with torch.autocast(x.device.type, enabled=False):
                y, self.path, self.scores = PlainWalk.apply(flat, *weights, trees, low)
        y = y.view(x.shape)
        return y if self.linear_out.bias is None else y + self.linear_out.bias

    def forward_dense(self, x: Tensor) -> Tensor:
        """Compute the same with every neuron and a mask, in PyTorch alone: the check of `forward`."""
        self._check(x)
        scores = self.linear_in(x).unflatten(-1, (self.num_trees, self.num_nodes))  # (..., P, n)
        node = scores.new_zeros(scores.shape[:-1], dtype=torch.long)
        visited = torch.zeros_like(scores)
        for _ in range(self.depth + 1):
            visited.scatter_(-1, node[..., None], 1.0)
            score = scores.detach().gather(-1, node[..., None])[..., 0]
            node = 2 * node + 1 + (score > 0)
        # where, not a product: NaN in a node that is not visited must not spread
        active = torch.where(visited > 0, ACTIVATIONS[self.activation](scores), 0.0)
        return self.linear_out(active.flatten(-2))

    def extra_repr(self) -> str:
        """Sizes and activation."""
        return f"hidden_size={self.hidden_size}, num_trees={self.num_trees}, depth={self.depth}, {self.activation}"

    def _check(self, x: Tensor) -> None:
        if x.shape[-1:] != (self.hidden_size,) or not x.is_floating_point():
            raise InputError(f"x: expected a float tensor (..., {self.hidden_size}), got {x.dtype} {tuple(x.shape)}")
        if x.device != self.linear_in.weight.device:
            raise InputError(
                f"x: expected a tensor on {self.linear_in.weight.device}, where the module is, got one on {x.device}; "
                "move one of them with .to(device)"
            )
        if self.linear_in.weight.dtype != torch.float32:
            raise InputError(
                f"FastFeedForward: expected float32 weights, got {self.linear_in.weight.dtype}; call .float()"
            )
