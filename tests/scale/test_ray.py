"""What of Ray needs no Ray; clusters are in tests/integrations/test_ray.py."""

import pytest

from ufbert import InputError
from ufbert.scale.ray import _actors


@pytest.mark.parametrize(
    ("cpus", "each", "asked", "filters", "expected"),
    [
        (2, 1, None, 0, (1, 1)), (9, 2, None, 0, (4, 4)), (9, 2, 3, 0, (3, 3)), (9, 2, (1, 6), 0, (1, 6)),
        (3, 1, None, 1, (1, 1)), (9, 2, None, 1, (3, 3)), (10, 2, 4, 1, (4, 4)),
    ],
)  # fmt: skip
def test_actors_leave_a_cpu_to_read_and_one_to_each_filter(cpus, each, asked, filters, expected):
    assert _actors(cpus, each, asked, filters) == expected


@pytest.mark.parametrize(
    ("cpus", "each", "asked", "filters", "words"),
    [
        (1, 1, None, 0, "at most 0 actors of 1 CPUs, because the cluster has 1 CPUs and one has to stay free"),
        (2, 1, 2, 0, "at most 1 actors of 1 CPUs, because the cluster has 2 CPUs and one has to stay free"),
        (2, 1, None, 1, "at most 0 actors of 1 CPUs, .* 2 have to stay free to read and write and for Ray's"),
        (0, 1, None, 1, "at most 0 actors"), (9, 2, (4, 9), 1, "at most 3 actors of 2 CPUs"),
    ],
)  # fmt: skip
def test_actors_that_would_wait_for_ever_are_refused(cpus, each, asked, filters, words):
    with pytest.raises(InputError, match=f"concurrency: expected {words}"):
        _actors(cpus, each, asked, filters)
