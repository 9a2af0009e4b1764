"""What several test files share: networks that are traced once, and sums in one order."""

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from tests.rr.networks import Networks

# torch writes down all that it traces, with call stacks, as soon as this logger has a handler; pytest gives it one.
del logging.Logger.manager.loggerDict["torch.__trace"]


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


@pytest.fixture
def full_precision() -> Iterator[None]:
    """On a GPU, products in float32 and not in the shorter TF32."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: then no worker has a long one left when the other has nothing more."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])
