"""The kernel lab itself: it accepts what is right, ties included, and refuses what is wrong."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from lab import examples

from ufbert import reference, testing


@examples(40)
@given(testing.fff_cases(max_depth=6))
def test_accepts_the_reference(case):
    with np.errstate(all="ignore"):
        y, path = reference.fff_walk(*case.arrays, case.depth, return_path=True, activation=case.activation)
    testing.assert_fff_close(y, path, *case.arrays, case.depth, case.activation)


@pytest.mark.parametrize("kind", testing.KINDS)
def test_every_kind_has_the_shapes_asked_for(kind):
    case = testing.make_case(5, 2, 3, 7, 9, kind=kind)
    assert [array.shape for array in case.arrays] == [(5, 7), (2, 15, 7), (2, 15), (2, 15, 9)]
    assert all(array.dtype == np.float32 for array in case.arrays)
    assert all(array.flags.c_contiguous for array in case.arrays) == (kind != "strided")


def _right_answer(kind="normal"):
    case = testing.make_case(20, 2, 4, 33, 17, kind=kind, seed=3)
    y, path = reference.fff_walk(*case.arrays, case.depth, return_path=True)
    return case, y, path


def test_refuses_a_wrong_output():
    case, y, path = _right_answer()
    y[3, 5] += 1e-3
    with pytest.raises(AssertionError, match=r"y\[3, 5\]"):
        testing.assert_fff_close(y, path, *case.arrays, case.depth)


def test_refuses_nan_where_a_number_belongs():
    case, y, path = _right_answer()
    y[0, 0] = np.nan
    with pytest.raises(AssertionError, match=r"y\[0, 0\]"):
        testing.assert_fff_close(y, path, *case.arrays, case.depth)


@pytest.mark.parametrize(("level", "node"), [(0, 1), (2, 1), (4, 0)])
def test_refuses_a_wrong_path(level, node):
    case, y, path = _right_answer()
    path[7, 1, level] = node
    with pytest.raises(AssertionError, match=r"path\[7, 1"):
        testing.assert_fff_close(y, path, *case.arrays, case.depth)


def test_a_flipped_tie_is_right_when_the_output_follows_it():
    case, _, path = _right_answer("zeros")
    path[:, :, 1:] = [2, 6, 14, 30]  # every score is 0: always right is as good as always left
    y = np.zeros((20, 17))
    testing.assert_fff_close(y, path, *case.arrays, case.depth)


def test_a_flipped_decision_is_wrong_where_there_is_no_tie():
    case, y, path = _right_answer()
    path[4, 0, 4] += 1 if path[4, 0, 4] % 2 else -1  # its sister
    with pytest.raises(AssertionError, match="no tie"):
        testing.assert_fff_close(y, path, *case.arrays, case.depth)


def test_poison_reaches_all_unvisited_nodes_and_no_other():
    case, _, path = _right_answer()
    poisoned = testing.poison_unvisited(case, path)
    for tree in range(2):
        visited = np.unique(path[:, tree])
        assert np.isfinite(poisoned.w_in[tree, visited]).all()
        assert np.isnan(np.delete(poisoned.w_in[tree], visited, axis=0)).all()


def test_hypothesis_is_not_imported_by_the_package():
    code = "import ufbert, ufbert.testing, sys; assert 'hypothesis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
