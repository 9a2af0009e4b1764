"""What several test files share: networks that are traced once, and sums in one order."""

from collections.abc import Iterator

import pytest
import torch

from tests.rr.networks import Networks


@pytest.fixture(scope="session")
def traced() -> Networks:
    """`traced["sres50"]` is the network, example inputs and its graph."""
    return Networks()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
