"""Random small CNNs, random compactors, random dead units: whatever the graph lets go converts exactly.

RESREP_EXAMPLES=2000 python -m pytest tests/rr/test_random_networks.py   # a longer search
"""

from __future__ import annotations

import copy
import os

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from networks import generic, insert_generic_compactors, random_alive
from torch import Tensor, nn

from rr import ChannelGraph, convert
from rr.convert import rehearse
from rr.files import load_strict
from rr.narrow_build import fit_shapes

EXAMPLES = int(os.environ.get("RESREP_EXAMPLES", "60"))
ACTIVATIONS = (F.relu, F.relu6, F.silu, F.hardswish, F.hardsigmoid, F.gelu, torch.sigmoid, torch.tanh, F.leaky_relu)
OPERATIONS = (
    *("conv", "conv bn", "depthwise bn", "grouped bn", "bn", "activation", "activation"),
    *("add", "concat", "gate", "squeeze", "max pool", "average pool", "slice of pixels", "permuted linear"),
)


class RandomNet(nn.Module):
    """A network out of steps, each a module and a function of (module, list of tensors so far) -> tensor."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self.functions = []
        self.shapes = [(3, 8, 8)]
        for _ in range(draw(st.integers(2, 9))):
            self.append(draw, draw(st.sampled_from(OPERATIONS)))
        channels, height, width = self.shapes[-1]
        self.flat = draw(st.booleans())
        self.fc = nn.Linear(channels * height * width if self.flat else channels, 3)

    def append(self, draw: st.DrawFn, operation: str) -> None:
        channels, height, width = self.shapes[-1]
        other = draw(st.integers(0, len(self.shapes) - 1))
        activation = draw(st.sampled_from(ACTIVATIONS))
        kernel, out = draw(st.sampled_from([1, 3])), draw(st.integers(2, 6))
        padding = draw(st.sampled_from([0, kernel // 2])) if min(height, width) >= 3 else kernel // 2
        bias = draw(st.booleans())

        def conv(inputs: int, outputs: int, **options: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=bias, **options)

        shrunk = (height + 2 * padding - kernel + 1, width + 2 * padding - kernel + 1)
        if operation == "conv":
            step = conv(channels, out), lambda m, xs: m(xs[-1]), (out, *shrunk)
        elif operation == "conv bn":
            module = nn.Sequential(conv(channels, out), nn.BatchNorm2d(out, eps=1e-3))
            step = module, lambda m, xs: activation(m(xs[-1])), (out, *shrunk)
        elif operation == "depthwise bn":
            module = nn.Sequential(conv(channels, 2 * channels, groups=channels), nn.BatchNorm2d(2 * channels))
            step = module, lambda m, xs: activation(m(xs[-1])), (2 * channels, *shrunk)
        elif operation == "grouped bn" and channels % 2 == 0:
            module = nn.Sequential(conv(channels, 2 * out, groups=2), nn.BatchNorm2d(2 * out))
            step = module, lambda m, xs: activation(m(xs[-1])), (2 * out, *shrunk)
        elif operation == "bn":
            step = nn.BatchNorm2d(channels), lambda m, xs: m(xs[-1]), (channels, height, width)
        elif operation == "add" and self.shapes[other] == self.shapes[-1]:
            step = nn.Identity(), lambda m, xs: xs[-1] + xs[other], (channels, height, width)
        elif operation == "concat" and self.shapes[other][1:] == (height, width):
            together = channels + self.shapes[other][0]
            step = nn.Identity(), lambda m, xs: torch.cat([xs[-1], xs[other]], 1), (together, height, width)
        elif operation == "gate" and self.shapes[other] == self.shapes[-1]:
            step = nn.Identity(), lambda m, xs: xs[-1] * activation(xs[other]), (channels, height, width)
        elif operation == "squeeze":
            module = nn.Sequential(nn.Conv2d(channels, out, 1), nn.ReLU(), nn.Conv2d(out, channels, 1))
            step = module, lambda m, xs: xs[-1] * m(xs[-1].mean((2, 3), keepdim=True)).sigmoid(), self.shapes[-1]
        elif operation == "max pool" and min(height, width) >= 4:
            step = nn.MaxPool2d(3, 2, 1), lambda m, xs: m(xs[-1]), (channels, (height + 1) // 2, (width + 1) // 2)
        elif operation == "average pool" and min(height, width) >= 4:
            step = nn.AvgPool2d(3, 2, 1), lambda m, xs: m(xs[-1]), (channels, (height + 1) // 2, (width + 1) // 2)
        elif operation == "slice of pixels" and height >= 3:
            step = nn.Identity(), lambda m, xs: xs[-1][:, :, 1:], (channels, height - 1, width)
        elif operation == "permuted linear":
            step = (
                nn.Linear(channels, out, bias=bias),
                lambda m, xs: activation(m(xs[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
                (out, height, width),
            )
        else:
            step = nn.Identity(), lambda m, xs: activation(xs[-1]), (channels, height, width)
        module, function, shape = step
        event(operation)
        self.steps.append(module)
        self.functions.append(function)
        self.shapes.append(shape)

    def forward(self, x: Tensor) -> Tensor:
        xs = [x]
        for module, function in zip(self.steps, self.functions, strict=True):
            xs.append(function(module, xs))
        return self.fc(xs[-1].flatten(1) if self.flat else xs[-1].mean((2, 3)))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), seed=st.integers(0, 2**16), dead=st.sampled_from([0.2, 0.5, 0.9]))
def test_what_may_go_goes_exactly(data: st.DataObject, seed: int, dead: float) -> None:
    torch.manual_seed(seed)
    model = generic(data.draw(st.composite(RandomNet)())).eval()
    images = torch.randn(2, 3, 8, 8)
    graph = ChannelGraph(model, images)
    assert set(range(graph.num_units)) >= set(graph.reasons)
    selected = graph.prunable
    if not selected.any():
        event("nothing prunable")
        return
    rehearse(model, graph, images, selected)
    alive = random_alive(graph, selected, dead, seed)
    plain = copy.deepcopy(model)
    insert_generic_compactors(model, graph, selected, alive)
    slim, report = convert(model, graph, images)
    assert report.float64_difference <= 1e-10
    assert report.macs_after == graph.macs(alive)
    again = ChannelGraph(slim, images)
    assert again.macs(np.ones(again.num_units, dtype=bool)) == report.macs_after
    fit_shapes(plain, slim.state_dict())
    load_strict(plain, slim.state_dict(), "the converted network")
    with torch.no_grad():
        assert torch.equal(plain(images), slim(images))
    event("channels gone" if report.dropped else "none gone")
