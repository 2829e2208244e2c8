import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufbert.routes.statistics import MARGIN_BINS, LayerRoutes, margin_bins, margin_values


def layer(visits, depth, margins=(), smallest=None):
    visits = np.array(visits, np.int64)
    margins = np.float32(margins)
    if smallest is None:
        smallest = np.full(len(visits), margins.min(initial=np.inf), np.float32)
    counts = np.bincount(margin_bins(margins), minlength=MARGIN_BINS)
    return LayerRoutes(0, depth, int(visits[0, 0]), visits, np.float32(smallest), counts)


def test_counts_of_a_tree():
    routes = layer([[8, 6, 2, 4, 2, 2, 0], [8, 8, 0, 8, 0, 0, 0]], 2)
    np.testing.assert_array_equal(routes.leaves, [[4, 2, 2, 0], [8, 0, 0, 0]])
    np.testing.assert_allclose(routes.leaf_entropy, [1.5, 0])
    np.testing.assert_allclose(routes.entropy_share, [0.75, 0])
    np.testing.assert_array_equal(routes.dead_nodes, [1, 4])
    np.testing.assert_array_equal(routes.leaves_seen, [3, 1])
    np.testing.assert_allclose(routes.busiest(0.01), [0.5, 1])
    np.testing.assert_allclose(routes.busiest(0.5), [0.75, 1])


def test_a_tree_of_one_leaf():
    routes = layer([[5]], 0, [np.inf] * 5)
    assert routes.leaf_entropy == [0] and routes.entropy_share == [1] and routes.dead_nodes == [0]
    assert np.isinf(routes.margin_percentiles([1, 50])).all()


@given(st.floats(0, 2.0**126, width=32))
def test_bins_are_narrow_and_in_order(margin):
    number = margin_bins(np.float32([margin]))
    assert 0 <= number[0] < MARGIN_BINS
    if 1e-30 < margin < 1e30:
        assert abs(margin_values(number)[0] / margin - 1) < 0.016
    larger = margin_bins(np.float32([margin * 2]))
    assert larger[0] >= number[0]


@pytest.mark.parametrize("seed", range(5))
def test_percentiles(seed):
    margins = np.abs(np.random.default_rng(seed).standard_normal(5_000)).astype(np.float32) ** 3
    routes = layer([[5_000, 5_000, 0]], 1, margins)
    percentages = [0, 1, 10, 50, 90, 99, 100]
    expected = np.percentile(margins, percentages, method="inverted_cdf")
    np.testing.assert_allclose(routes.margin_percentiles(percentages), expected, rtol=0.033)
    assert routes.margin_percentiles([0])[0] >= margins.min()
