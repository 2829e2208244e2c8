"""A kernel lab: hard cases for fast feedforward layers, and a comparison that knows about ties.

For everyone who writes an implementation of these layers, in this package or elsewhere::

    from hypothesis import given
    from ufbert import testing

    @given(testing.fff_cases())
    def test_mine(case):
        y, path = my_fff_forward(*case.arrays, case.depth, return_path=True, activation=case.activation)
        testing.assert_fff_close(y, path, *case.arrays, case.depth, case.activation)

The strategies need ``hypothesis``, which is imported when one is called and not before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from . import reference

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

__all__ = ["KINDS", "FFFCase", "assert_fff_close", "fff_cases", "make_case", "poison_unvisited", "widths"]

FLOAT32_UNIT = 2.0**-24  # the largest relative error of one rounding
LANES = 4  # sums that run side by side in the narrowest kernel: fewer lanes, longer sums, larger errors
LARGEST_CASE = 1 << 18  # weights; beyond that a case tests memory more than arithmetic

KINDS = ("normal", "integers", "zeros", "denormal", "large", "same", "nonfinite", "strided")
"""What is hard about a case: see `make_case`."""


@dataclass(frozen=True)
class FFFCase:
    """Arguments of a fast feedforward layer.

    Attributes
    ----------
    x : (T, H) float32 array
    w_in : (P, n, H) float32 array
    b_in : (P, n) float32 array
    w_out : (P, n, H_out) float32 array
    depth : int
    activation : str
    kind : str
        One of `KINDS`.
    """

    x: np.ndarray
    w_in: np.ndarray
    b_in: np.ndarray
    w_out: np.ndarray
    depth: int
    activation: str
    kind: str

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, w_in, b_in, w_out."""
        return self.x, self.w_in, self.b_in, self.w_out

    def __repr__(self) -> str:
        trees, _, width = self.w_in.shape
        shape = f"{len(self.x)} tokens, {trees}x{self.depth}, {width} -> {self.w_out.shape[2]}"
        return f"FFFCase({shape}, {self.activation}, {self.kind})"


def widths() -> SearchStrategy[int]:
    """Hypothesis strategy: widths at and beside the edges of vectors and blocks, 1 to 97, now and then 384 or 768."""
    from hypothesis import strategies as st

    edges = st.sampled_from([1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 95, 96, 97, 384, 768])
    return st.one_of(edges, st.integers(1, 97))


def fff_cases(
    max_depth: int = 12, kinds: tuple[str, ...] = KINDS, activations: tuple[str, ...] | None = None
) -> SearchStrategy[FFFCase]:
    """Hypothesis strategy: an `FFFCase`.

    Parameters
    ----------
    max_depth : int
        Depths are 0 to this, fewer where the case would be larger than 2**18 weights.
    kinds : tuple of str
        Of `KINDS`.
    activations : tuple of str, optional
        By default all that the package has.
    """
    from hypothesis import strategies as st

    @st.composite
    def cases(draw: DrawFn) -> FFFCase:
        width_in, width_out, trees = draw(widths()), draw(widths()), draw(st.sampled_from([1, 2, 3, 8]))
        deepest = max_depth
        while deepest > 0 and trees * 2 ** (deepest + 1) * (width_in + width_out) > LARGEST_CASE:
            deepest -= 1
        return make_case(
            tokens=draw(st.sampled_from([0, 1, 2, 3, 5, 7, 8, 9, 16, 17, 40, 150])),
            trees=trees,
            depth=draw(st.integers(0, deepest)),
            width_in=width_in,
            width_out=width_out,
            activation=draw(st.sampled_from(activations or tuple(reference.ACTIVATIONS))),
            kind=draw(st.sampled_from(kinds)),
            seed=draw(st.integers(0, 2**32 - 1)),
        )

    return cases()


def make_case(
    tokens: int,
    trees: int,
    depth: int,
    width_in: int,
    width_out: int,
    activation: str = "gelu",
    kind: str = "normal",
    seed: int = 0,
) -> FFFCase:
    """One case, drawn from a seed.

    Parameters
    ----------
    tokens, trees, depth, width_in, width_out, activation
        Of the layer.
    kind : str
        "normal": normal values, scores of about 1. "integers": small whole numbers, whose sums are exact in any
        order and often 0, an exact tie. "zeros": inputs and biases are 0. "denormal": weights below the normal
        floats. "large": inputs of 1e15. "same": all tokens alike, so all take one path. "nonfinite": some inputs
        are NaN or infinite. "strided": arrays that are not contiguous.
    seed : int

    Returns
    -------
    FFFCase
    """
    rng = np.random.default_rng(seed)
    nodes = 2 ** (depth + 1) - 1
    shapes = ((tokens, width_in), (trees, nodes, width_in), (trees, nodes), (trees, nodes, width_out))
    if kind == "integers":
        x, w_in, b_in, w_out = (rng.integers(-2, 3, shape).astype(np.float32) for shape in shapes)
    else:
        x, w_in, b_in, w_out = (rng.standard_normal(shape, np.float32) for shape in shapes)
        w_in /= np.float32(np.sqrt(width_in))
    if kind == "zeros":
        x[:], b_in[:] = 0, 0
    elif kind == "denormal":
        w_in, b_in = w_in * np.float32(1e-39), b_in * np.float32(1e-39)
    elif kind == "large":
        x *= np.float32(1e15)
    elif kind == "same":
        x[:] = x[:1]
    elif kind == "nonfinite":
        places = rng.random(x.shape) < 1.0 / max(1, width_in)
        x[places] = rng.choice(np.array([np.nan, np.inf, -np.inf], np.float32), int(places.sum()))
    elif kind == "strided":
        x, w_in, b_in, w_out = (_strided(array) for array in (x, w_in, b_in, w_out))
    return FFFCase(x, w_in, b_in, w_out, depth, activation, kind)


def _strided(array: np.ndarray) -> np.ndarray:
    """The same values, every second element of a larger array, last axis backwards."""
    larger = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, np.float32)
    view = larger[..., ::-2]
    view[...] = array
    return view


def poison_unvisited(case: FFFCase, path: np.ndarray, value: float = np.nan) -> FFFCase:
    """The same case with `value` in all weights of nodes that no token visited: a kernel must not notice.

    Parameters
    ----------
    case : FFFCase
    path : (T, P, depth + 1) integer array
        The nodes that the tokens visit.
    value : float

    Returns
    -------
    FFFCase
    """
    unvisited = np.ones(case.b_in.shape, bool)
    for tree in range(len(unvisited)):
        unvisited[tree, np.unique(path[:, tree])] = False
    w_in, b_in, w_out = (np.array(array) for array in (case.w_in, case.b_in, case.w_out))
    for array in (w_in, b_in, w_out):
        array[unvisited] = value
    return replace(case, w_in=w_in, b_in=b_in, w_out=w_out)


def assert_fff_close(
    y: ArrayLike,
    path: ArrayLike,
    x: ArrayLike,
    w_in: ArrayLike,
    b_in: ArrayLike,
    w_out: ArrayLike,
    depth: int,
    activation: str = "gelu",
    slack: float = 4.0,
) -> None:
    """Assert that (y, path) is what the layer gives, up to float32 rounding, with ties decided either way.

    The path is followed, not compared: at each node the decision must be the one of the float64 score, unless that
    score is within the rounding error that a float32 sum of these terms may have. `y` must then be what this very
    path gives, within the rounding errors along it. So one flipped tie neither hides an error nor counts as one.

    Parameters
    ----------
    y : (T, H_out) array
    path : (T, P, depth + 1) integer array
        What the implementation returned.
    x, w_in, b_in, w_out, depth, activation
        What it was given; for weights in bfloat16, what they round to.
    slack : float
        How many times the rounding bound is allowed: errors of the activation function, of about two units, and
        second-order terms are not counted one by one.

    Raises
    ------
    AssertionError
        Naming the token, tree and node, what was expected and what was found.
    """
    y, path = np.asarray(y, np.float64), np.asarray(path)
    x, w_in, b_in, w_out = (np.asarray(array, np.float64) for array in (x, w_in, b_in, w_out))
    expected_shape = (len(x), w_in.shape[0], depth + 1)
    assert path.shape == expected_shape, f"path: expected shape {expected_shape}, got {path.shape}"
    assert y.shape == (len(x), w_out.shape[2]), f"y: expected shape {(len(x), w_out.shape[2])}, got {y.shape}"
    total, error = np.zeros_like(y), np.full_like(y, 1e-37)
    with np.errstate(all="ignore"):
        for tree in range(w_in.shape[0]):
            for level in range(depth + 1):
                nodes = path[:, tree, level]
                if level == 0:
                    _require(nodes == 0, path, tree, level, "expected the root, node 0")
                rows = w_in[tree, nodes]
                score = np.einsum("th,th->t", x, rows) + b_in[tree, nodes]
                terms = np.einsum("th,th->t", np.abs(x), np.abs(rows)) + np.abs(b_in[tree, nodes])
                margin = slack * (x.shape[1] / LANES + 8) * FLOAT32_UNIT * terms + 1e-37
                if level < depth:
                    _check_decisions(path, tree, level, score, margin)
                added, added_error = _contribution(score, margin, w_out[tree, nodes], activation, slack)
                total += added
                error += added_error + FLOAT32_UNIT * np.abs(added) * path.shape[1] * path.shape[2]
        _check_output(y, total, error)


def _check_decisions(path: np.ndarray, tree: int, level: int, score: np.ndarray, margin: np.ndarray) -> None:
    """Each next node must be the child that the score chooses, or either child where the score is nearly 0."""
    left = 2 * path[:, tree, level] + 1
    right_turn = path[:, tree, level + 1] - left
    _require((right_turn == 0) | (right_turn == 1), path, tree, level + 1, "expected a child of the node above")
    # A sum that overflows float32 on the way may end as NaN, which goes left.
    undecided = (np.abs(score) <= margin) | (np.isfinite(score) & (margin > 1e30)) | np.isnan(margin)
    agrees = right_turn == (score > 0)
    _require(agrees | (undecided & ~np.isnan(score)), path, tree, level + 1, "expected the other child: no tie")


def _contribution(
    score: np.ndarray, margin: np.ndarray, rows: np.ndarray, activation: str, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """What the nodes add to y, and how far a float32 implementation may be off."""
    value = reference.ACTIVATIONS[activation](score)
    value_error = 1.2 * margin + slack * 2 * FLOAT32_UNIT * np.abs(score)
    terms = value[:, None] * rows
    return terms, value_error[:, None] * np.abs(rows) + slack * FLOAT32_UNIT * np.abs(terms)


def _check_output(y: np.ndarray, expected: np.ndarray, error: np.ndarray) -> None:
    # Where the bound itself leaves float32, anything may come out; else NaN and infinity must be the same ones.
    comparable = np.isfinite(error) & (np.abs(expected) + error < 3e38)
    special = np.isnan(expected) & ~np.isnan(y)
    wrong = (comparable & ~(np.abs(y - expected) <= error)) | special
    if wrong.any():
        token, column = np.argwhere(wrong)[0]
        raise AssertionError(
            f"y[{token}, {column}]: expected {expected[token, column]:.9g} within {error[token, column]:.3g} for the "
            f"path taken, got {y[token, column]:.9g}; {int(wrong.sum())} of {wrong.size} elements differ"
        )


def _require(holds: np.ndarray, path: np.ndarray, tree: int, level: int, message: str) -> None:
    if not holds.all():
        token = int(np.argmin(holds))
        raise AssertionError(
            f"path[{token}, {tree}, {level}]: {message}, got {path[token, tree, level]}; "
            f"the whole path is {path[token, tree].tolist()}"
        )
