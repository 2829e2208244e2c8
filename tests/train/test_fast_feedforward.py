"""ufbert.train.FastFeedForward: on the kernels and in plain PyTorch, against every neuron and a mask, and reference."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lab import examples

from ufbert import reference
from ufbert.errors import InputError
from ufbert.train import FastFeedForward, walk

ATOL = 2e-5


def gradients(layer, x, dy, forward):
    layer.zero_grad()
    x = x.clone().requires_grad_(True)
    y = forward(x)
    y.backward(dy)
    return [y.detach(), x.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


@examples(40)
@given(
    st.integers(1, 40), st.integers(1, 4), st.integers(0, 5), st.sampled_from(["gelu", "relu", "silu", "tanh"]),
    st.booleans(), st.integers(0, 30), st.booleans(),
)  # fmt: skip
def test_result_and_gradients_are_those_of_the_masked_dense_layer(
    hidden, trees, depth, activation, bias, tokens, plain
):
    torch.manual_seed(hidden * 1000 + tokens)
    layer = FastFeedForward(hidden, trees, depth, activation, bias, plain=plain)
    x, dy = torch.randn(tokens, hidden), torch.randn(tokens, hidden)
    ours = gradients(layer, x, dy, layer)
    theirs = gradients(layer, x, dy, layer.forward_dense)
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, atol=ATOL, rtol=1e-4)


def test_leading_axes_are_tokens_and_the_path_is_kept():
    layer = FastFeedForward(8, 2, 3)
    x = torch.randn(2, 5, 8)
    y = layer(x)
    assert y.shape == x.shape
    assert layer.path.shape == layer.scores.shape == (10, 2, 4)
    torch.testing.assert_close(y.flatten(0, 1), layer(x.flatten(0, 1)))


def test_autograd_s_own_check_passes_in_finite_differences():
    layer = FastFeedForward(5, 2, 2, "tanh", output_bias=True)
    x = torch.randn(4, 5)
    with torch.no_grad():
        layer(x)
    margin = np.abs(layer.scores[:, :, :-1]).min()
    assert margin > 1e-3, "a decision stands on the edge: choose another seed"
    direction, step = torch.randn(4, 5), 1e-3 * float(margin)
    x.requires_grad_(True)
    layer(x).sum().backward()
    slope = (layer(x + step * direction).sum() - layer(x - step * direction).sum()) / (2 * step)
    assert slope.item() == pytest.approx((x.grad * direction).sum().item(), rel=0.05, abs=0.05)


def test_state_dict_has_the_authors_names_and_layout():
    layer = FastFeedForward(6, 3, 2)
    assert {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()} == {
        "linear_in.weight": (21, 6),
        "linear_in.bias": (21,),
        "linear_out.weight": (6, 21),
    }
    other = FastFeedForward(6, 3, 2)
    # as torch.load gives it: contiguous, unlike what is trained
    other.load_state_dict({name: tensor.clone().contiguous() for name, tensor in layer.state_dict().items()})
    x = torch.randn(7, 6)
    assert torch.equal(layer(x), other(x))
    assert other.linear_out.weight.t().is_contiguous()
    arrays = (
        layer.linear_in.weight.detach().numpy().reshape(3, 7, 6),
        layer.linear_in.bias.detach().numpy().reshape(3, 7),
    )
    w_out = layer.linear_out.weight.detach().numpy().T.reshape(3, 7, 6)
    np.testing.assert_allclose(layer(x).detach(), reference.fff_forward(x.numpy(), *arrays, w_out, 2), atol=1e-6)


def test_no_weight_is_copied_to_train_and_optimizers_keep_the_layout():
    layer = FastFeedForward(8, 2, 3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    memory = layer.linear_out.weight.data_ptr()
    layer(torch.randn(50, 8)).square().sum().backward()
    assert layer.linear_out.weight.grad.stride() == layer.linear_out.weight.stride() == (1, 8)
    optimizer.step()
    assert layer.linear_out.weight.data_ptr() == memory
    assert copy.deepcopy(layer).linear_out.weight.stride() == (1, 8)


def test_only_visited_nodes_get_gradients():
    layer = FastFeedForward(8, 1, 4)
    layer(torch.randn(3, 8)).sum().backward()
    visited = set(layer.path.ravel().tolist())
    touched = set(layer.linear_in.weight.grad.abs().sum(1).nonzero()[:, 0].tolist())
    assert touched <= visited
    assert len(visited) <= 3 * 4 + 1


def test_decisions_get_gradients_where_asked_for_and_the_generator_decides_which():
    torch.manual_seed(0)
    layer = FastFeedForward(16, 2, 4, decision_gradient=True)
    x, dy = torch.randn(50, 16), torch.randn(50, 16)
    torch.manual_seed(1)
    tried = torch.randint(4, (50, 2), dtype=torch.int32).numpy()
    torch.manual_seed(1)
    _, dx, dw_in, db_in, dw_out = gradients(layer, x, dy, layer)
    w_in, w_out = (weight.view(2, 31, 16) for weight in (layer.linear_in.weight, layer.linear_out.weight.t()))
    arrays = [array.detach().double().numpy() for array in (w_in, layer.linear_in.bias.view(2, 31), w_out)]
    expected = reference.fff_backward(
        dy.double().numpy(), x.double().numpy(), *arrays, 4, layer.path, layer.scores, tried=tried, switch_cost=0.2
    )
    for mine, exact in zip((dx, dw_in, db_in, dw_out.t()), expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), exact.reshape(mine.shape), rtol=1e-4, atol=ATOL)
    layer.decision_gradient = False
    assert not torch.equal(gradients(layer, x, dy, layer)[2], dw_in)


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu", "tanh"])
@pytest.mark.parametrize(("trees", "depth", "tokens"), [(1, 1, 9), (3, 4, 40), (1, 7, 25), (5, 0, 6), (2, 3, 0)])
def test_the_plain_walk_gives_decisions_the_sum_of_all_levels(trees, depth, tokens, activation, monkeypatch):
    """What the kernels draw one level of: their gradient, over the number of levels, summed over the levels."""
    torch.manual_seed(depth)
    monkeypatch.setattr(walk, "MOST_SCORES", 10 * trees * 2 ** (depth + 1))  # so that tokens come in several parts
    layer = FastFeedForward(16, trees, depth, activation, decision_gradient=True, switch_cost=0.3, plain=True)
    x, dy = torch.randn(tokens, 16), torch.randn(tokens, 16)
    y, dx, dw_in, db_in, dw_out = gradients(layer, x, dy, layer)
    shape = (trees, layer.num_nodes, 16)
    weights = [layer.linear_in.weight.view(shape), layer.linear_in.bias.view(shape[:2])]
    weights = [tensor.detach().double().numpy() for tensor in (*weights, layer.linear_out.weight.t().reshape(shape))]
    path, scores = layer.path.numpy().astype(np.int32), layer.scores.double().numpy()
    arguments = (dy.double().numpy(), x.double().numpy(), *weights, depth, path, scores)
    base = reference.fff_backward(*arguments, activation=activation)
    expected = list(base)
    for level in range(depth):
        tried = np.full((tokens, trees), level, np.int32)
        grads = reference.fff_backward(*arguments, activation=activation, tried=tried, switch_cost=0.3)
        expected = [
            total + (grad - without) / depth for total, grad, without in zip(expected, grads, base, strict=True)
        ]
    result = reference.fff_forward(x.double().numpy(), *weights, depth, activation=activation)
    np.testing.assert_allclose(y.numpy(), result, rtol=1e-4, atol=ATOL)
    for mine, exact in zip((dx, dw_in, db_in, dw_out.t()), expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), exact.reshape(mine.shape), rtol=1e-4, atol=ATOL)
    if depth and tokens:
        layer.decision_gradient = False
        assert not torch.equal(gradients(layer, x, dy, layer)[2], dw_in)


def test_both_walks_visit_the_same_nodes():
    torch.manual_seed(0)
    layer, x = FastFeedForward(16, 3, 5), torch.randn(200, 16)
    layer(x)
    path, scores, layer.plain = layer.path, layer.scores, True
    layer(x)
    np.testing.assert_array_equal(path, layer.path.numpy())
    np.testing.assert_allclose(scores, layer.scores.numpy(), atol=ATOL)


def test_low_precision_decides_in_float16_and_stays_near():
    """What autocast asks for on devices other than the CPU."""
    torch.manual_seed(0)
    layer, x = FastFeedForward(32, 2, 4, decision_gradient=True, plain=True), torch.randn(300, 32)
    trees = walk.Trees(2, 4, "gelu", True, 0.2)
    weights = [p.detach().clone() for p in (layer.linear_in.weight, layer.linear_in.bias, layer.linear_out.weight.t())]
    found = []
    for low in (False, True):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, *weights)]
        y, path, _ = walk.PlainWalk.apply(*leaves, trees, low)
        y.square().sum().backward()
        found.append([y.detach(), path, *(leaf.grad for leaf in leaves)])
    exact, low = found
    assert low[0].dtype == torch.float32 and all(grad.dtype == torch.float32 for grad in low[2:])
    same = (exact[1] == low[1]).all(2).all(1)
    assert same.float().mean() > 0.97
    torch.testing.assert_close(low[0][same], exact[0][same], atol=5e-3, rtol=1e-2)
    for mine, expected in zip(low[2:], exact[2:], strict=True):
        assert (mine - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("plain", [False, True])
def test_inputs_on_another_device_are_refused(plain):
    layer = FastFeedForward(4, 1, 1, plain=plain)
    with pytest.raises(InputError, match="expected a tensor on cpu, where the module is, got one on meta"):
        layer(torch.zeros(3, 4, device="meta"))


def test_trees_of_depth_0_have_no_decisions():
    layer = FastFeedForward(16, 2, 0, decision_gradient=True)
    layer(torch.randn(5, 16)).sum().backward()
    assert layer.linear_in.weight.grad.isfinite().all()


@pytest.mark.parametrize("plain", [False, True])
def test_decisions_learn_what_the_activation_alone_does_not(plain):
    """Which line fits depends on a coordinate's sign: a split has to turn to it, though alone it explains nothing."""
    left = dict.fromkeys((False, True), 0.0)
    for decision_gradient, seed in itertools.product(left, (3, 4, 5)):
        torch.manual_seed(seed)
        layer = FastFeedForward(6, 1, 2, output_bias=True, decision_gradient=decision_gradient, plain=plain)
        optimizer = torch.optim.Adam(layer.parameters(), lr=2e-2)
        for _ in range(400):
            x = torch.randn(256, 6)
            loss = (layer(x) - x[:, :1].sign() * x[:, 1:2]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[decision_gradient] += loss.item()
    assert left[True] < 0.6 * left[False]


def test_it_learns():
    torch.manual_seed(0)
    layer, x = FastFeedForward(8, 4, 3), torch.randn(500, 8)
    wanted = torch.relu(x @ torch.randn(8, 8))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(150):
        loss = (layer(x) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("plain", [False, True])
def test_nan_in_a_node_that_no_token_visits_stays_there(plain):
    layer = FastFeedForward(4, 1, 1, plain=plain)
    with torch.no_grad():
        layer.linear_in.bias[0] = 100.0  # all go right
        layer.linear_in.weight[1] = float("nan")
    x = torch.randn(5, 4)
    assert torch.isfinite(layer(x)).all()
    torch.testing.assert_close(layer(x), layer.forward_dense(x), atol=ATOL, rtol=1e-4)
    assert all(grad.isfinite().all() for grad in gradients(layer, x, torch.ones(5, 4), layer))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((0, 1, 1), "hidden_size"), ((4, 0, 1), "num_trees"), ((4, 1, 25), "depth"), ((4, 1, True), "depth"),
     ((4, 1, 1, "mish"), "activation")],
)  # fmt: skip
def test_wrong_settings_are_refused_by_name(arguments, word):
    with pytest.raises(InputError, match=word):
        FastFeedForward(*arguments)


@pytest.mark.parametrize("x", [torch.zeros(3, 5), torch.zeros(3, 4, dtype=torch.int64), torch.zeros(())])
def test_wrong_inputs_are_refused(x):
    with pytest.raises(InputError, match="x: expected"):
        FastFeedForward(4, 1, 1)(x)


def test_half_precision_weights_are_refused_with_advice():
    with pytest.raises(InputError, match="float32 weights"):
        FastFeedForward(4, 1, 1).half()(torch.zeros(3, 4))


def test_autocast_leaves_the_trees_in_float32():
    layer, x = FastFeedForward(8, 2, 3), torch.randn(20, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, layer(x))
