"""Training tests are tiny: one thread each, so that no pool of threads spins in another's time."""

import os

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
