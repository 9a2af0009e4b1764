"""Traced networks that several test files read, traced once."""

import pytest
from networks import network
from torch import Tensor, nn

from rr import ChannelGraph

SIZES = {"src20": 16, "src56": 16, "vc": 32, "lenet5bn": 28, "smi1": 32, "smi1_cifar": 16, "sres50": 32}
Traced = tuple[nn.Module, Tensor, ChannelGraph]


class Networks(dict[str, Traced]):
    """Model, inputs and graph by name; only to be read, since all tests share them."""

    def __missing__(self, name: str) -> Traced:
        model, images = network(name, SIZES[name])
        self[name] = model, images, ChannelGraph(model, images)
        return self[name]


@pytest.fixture(scope="session")
def traced() -> Networks:
    """`traced["sres50"]` is the network, example inputs and its graph."""
    return Networks()
