"""Example inputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rr.graph import ChannelGraph


@pytest.mark.parametrize("inputs", [(), torch.tensor(1.0), [3]])
def test_inputs_that_are_none(inputs: object) -> None:
    with pytest.raises(ValueError, match="example_inputs"):
        ChannelGraph(nn.Linear(4, 2), inputs)
