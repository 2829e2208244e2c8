"""The fast feedforward layer of UltraFastBERT as a module whose training step visits depth + 1 nodes a token."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks, cmm
from ..activations import IN_KERNELS, TABLE
from ..errors import InputError

__all__ = ["FastFeedForward"]

ACTIVATIONS = {name: getattr(nn, str(TABLE[name].torch))() for name in IN_KERNELS}


class FastFeedForward(nn.Module):
    """Binary trees of neurons, of which a token visits one path each; forward and backward run on the kernels.

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
        Let decisions learn too, from the path that a token did not take at one level of each tree, drawn with
        PyTorch's generator for each backward pass. The authors' training code does not.
    switch_cost : float
        With `decision_gradient`: see `ufbert.cmm.fff_backward`.

    Attributes
    ----------
    linear_in : torch.nn.Linear
        weight (P * n, H) and bias (P * n,): the authors' names and layout, tree after tree.
    linear_out : torch.nn.Linear
        weight (H, P * n); in memory a node's output row is contiguous. bias (H,) with `output_bias`.
    path : (T, P, depth + 1) int32 array or None
        Nodes that the last forward pass visited, T being all leading axes together.
    scores : (T, P, depth + 1) float32 array or None
        Their scores.

    Raises
    ------
    InputError
        If an argument does not fit.

    Notes
    -----
    Without `decision_gradient`, gradients flow through the activations of visited nodes alone. Parameters are float32
    on the CPU; under autocast the input is taken as float32. Results and gradients do not depend on the number of
    threads. arXiv 2311.10770.
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
    ) -> None:
        super().__init__()
        checks.integer(hidden_size, "hidden_size", 1, 2**20)
        checks.integer(num_trees, "num_trees", 1, 2**22)
        checks.depth(depth)
        checks.choice(activation, "activation", ACTIVATIONS)
        self.hidden_size, self.num_trees, self.depth, self.activation = hidden_size, num_trees, depth, activation
        self.decision_gradient, self.switch_cost = decision_gradient, switch_cost
        neurons = num_trees * self.num_nodes
        self.linear_in = nn.Linear(hidden_size, neurons)
        self.linear_out = nn.Linear(neurons, hidden_size, bias=output_bias)
        # Transposed in memory: the kernels read and update a node's output row in one piece, without a copy.
        self.linear_out.weight = nn.Parameter(self.linear_out.weight.detach().t().contiguous().t())
        self.path = self.scores = None
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
        """Compute (..., H) float32 -> (..., H), visiting depth + 1 nodes of each tree for each token."""
        self._check(x)
        trees = (self.linear_in.weight, self.linear_in.bias, self.linear_out.weight.t())
        y, path, scores = _Walk.apply(x.reshape(-1, self.hidden_size).float(), *trees, self)
        self.path, self.scores = path, scores
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
        return f"hidden_size={self.hidden_size}, num_trees={self.num_trees}, depth={self.depth}, {self.activation}"

    def _check(self, x: Tensor) -> None:
        if x.shape[-1:] != (self.hidden_size,) or not x.is_floating_point():
            raise InputError(f"x: expected a float tensor (..., {self.hidden_size}), got {x.dtype} {tuple(x.shape)}")
        if x.device.type != "cpu" or self.linear_in.weight.device.type != "cpu":
            raise InputError(f"x: expected tensors on the CPU, got {x.device}; move input and module with .cpu()")
        if self.linear_in.weight.dtype != torch.float32:
            raise InputError(
                f"FastFeedForward: expected float32 weights, got {self.linear_in.weight.dtype}; call .float()"
            )


class _Walk(torch.autograd.Function):
    """`cmm.fff_forward` and `cmm.fff_backward` on views of the tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_in: Tensor, b_in: Tensor, w_out: Tensor, layer: FastFeedForward) -> Any:
        shape = (layer.num_trees, layer.num_nodes, layer.hidden_size)
        arrays = (w_in.detach().view(shape).numpy(), b_in.detach().view(shape[:2]).numpy())
        arrays += (w_out.detach().reshape(shape).numpy(),)
        y, path, scores = cmm.fff_forward(
            x.detach().numpy(), *arrays, layer.depth, activation=layer.activation,
            num_threads=torch.get_num_threads(), return_path=True, return_scores=True,
        )  # fmt: skip
        ctx.save_for_backward(x, w_in, b_in, w_out)
        ctx.visits, ctx.depth, ctx.activation, ctx.shape = (path, scores), layer.depth, layer.activation, shape
        ctx.decides, ctx.switch_cost = layer.decision_gradient and layer.depth > 0, layer.switch_cost
        return torch.from_numpy(y), path, scores

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> Any:
        x, w_in, b_in, w_out = (tensor.detach() for tensor in ctx.saved_tensors)
        shape, tried = ctx.shape, None
        if ctx.decides:
            tried = torch.randint(ctx.depth, (len(x), shape[0]), dtype=torch.int32).numpy()
        grads = cmm.fff_backward(
            dy.contiguous().numpy(), x.numpy(), w_in.view(shape).numpy(), b_in.view(shape[:2]).numpy(),
            w_out.reshape(shape).numpy(), ctx.depth, *ctx.visits, activation=ctx.activation,
            num_threads=torch.get_num_threads(), tried=tried, switch_cost=ctx.switch_cost,
        )  # fmt: skip
        dx, dw_in, db_in, dw_out = map(torch.from_numpy, grads)
        return dx, dw_in.view(w_in.shape), db_in.view(-1), dw_out.view(w_out.shape), None
