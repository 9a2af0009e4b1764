"""Example inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rr.graph import ChannelGraph, ExampleInputs
from tests.rr.networks import Net


@pytest.mark.parametrize("inputs", [(), torch.tensor(1.0), [3]])
def test_inputs_that_are_none(inputs: object) -> None:
    with pytest.raises(ValueError, match="example_inputs"):
        ChannelGraph(nn.Linear(4, 2), inputs)


def test_inputs_stay_as_they_are_whatever_the_forward_does_to_them() -> None:
    images = torch.ones(2, 4)
    model = Net(lambda net, x: net.fc(x.mul_(2.0)), fc=nn.Linear(4, 2))
    ExampleInputs.of(images).call(model)
    ChannelGraph(model, images)
    assert (images == 1).all()


def test_arguments_that_are_no_tensors_are_named() -> None:
    images = torch.ones(2, 4)
    inputs = ExampleInputs((images, None, [images, 3]), {"mask": images, "mode": "pad", "sizes": (images, (2, 5))})
    assert inputs.others == ["argument 2: None", "argument 3: 3", "mode='pad'", "sizes=2, 5"]
