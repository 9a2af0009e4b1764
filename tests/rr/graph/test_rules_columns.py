"""Channel ids into recurrent layers, and into matrices that are parameters of a user's own module."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import explain, load_converted, save_converted
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from tests.rr.flows import Case, behind_b, check_exact, check_unprunable
from tests.rr.narrowed import kill, losses, pruner_of
from tests.rr.networks import Net, conv, insert_generic_compactors, random_alive

IMAGES = (2, 3, 6, 6)


def read_out(net: Net, x: Tensor) -> Tensor:
    """Columns of the image as a sequence, as networks that read text have it."""
    x = F.relu(net.b(F.relu(net.a(x)))).mean(2).permute(2, 0, 1)
    return net.fc(net.r(x)[0].mean(0))


def by_batch(net: Net, x: Tensor) -> Tensor:
    x = F.relu(net.b(F.relu(net.a(x)))).flatten(1, 2).permute(0, 2, 1)  # each channel's rows side by side
    return net.fc(net.r(x)[0].mean(1))


def steps(net: Net, x: Tensor) -> Tensor:
    x, state = F.relu(net.b(F.relu(net.a(x)))).mean(2), None
    for place in range(x.shape[2]):
        state = net.r(x[:, :, place], state)
    return net.fc(state[0] if isinstance(state, tuple) else state)


def from_a_state(net: Net, x: Tensor) -> Tensor:
    """Channels are what the sequence begins from, too."""
    x = F.relu(net.b(F.relu(net.a(x)))).mean(2).permute(2, 0, 1)
    return net.fc(net.r(x, F.relu(net.c(x.permute(1, 2, 0).mean(2))).unsqueeze(0))[0].mean(0))


RECURRENT: dict[str, Case] = {
    "LSTM": (read_out, {"r": nn.LSTM(6, 5), "fc": nn.Linear(5, 2)}, "a b"),
    "LSTM of two layers, both ways": (
        read_out,
        {"r": nn.LSTM(6, 5, num_layers=2, bidirectional=True), "fc": nn.Linear(10, 2)},
        "a b",
    ),
    "LSTM with a projection, no bias": (
        read_out,
        {"r": nn.LSTM(6, 5, proj_size=3, bias=False), "fc": nn.Linear(3, 2)},
        "a b",
    ),
    "GRU, batch first": (by_batch, {"r": nn.GRU(36, 5, batch_first=True), "fc": nn.Linear(5, 2)}, "a b"),
    "RNN both ways": (
        read_out,
        {"r": nn.RNN(6, 5, bidirectional=True, nonlinearity="relu"), "fc": nn.Linear(10, 2)},
        "a b",
    ),
    "steps of an LSTM": (steps, {"r": nn.LSTMCell(6, 5), "fc": nn.Linear(5, 2)}, "a b"),
    "steps of a GRU": (steps, {"r": nn.GRUCell(6, 5), "fc": nn.Linear(5, 2)}, "a b"),
    "a first state": (from_a_state, {"r": nn.GRU(6, 5), "c": nn.Linear(6, 5), "fc": nn.Linear(5, 2)}, "a b"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", RECURRENT)
def test_what_a_recurrent_layer_reads_may_go(case: str) -> None:
    check_exact(*RECURRENT[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["LSTM of two layers, both ways", "GRU, batch first", "steps of an LSTM"])
def test_a_narrow_recurrent_layer_knows_its_size_and_comes_back_from_a_file(case: str, tmp_path: Path) -> None:
    forward, modules, _ = RECURRENT[case]

    def build() -> nn.Module:
        parts = {"a": conv(3, 8), "b": conv(8, 6), **modules}
        return Net(forward, **parts)

    torch.manual_seed(0)
    model, images = build().eval(), torch.randn(IMAGES)
    graph = ChannelGraph(model, images)
    alive = random_alive(graph, graph.prunable, 0.5, seed=1)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    full = model.r.input_size
    slim, report = convert(LiveModel(model, graph), images)
    assert slim.r.input_size == full * slim.b.out_channels // 6 < full == model.r.input_size
    assert report.parameters_after == graph.parameters(alive)
    counted = ChannelGraph(slim, images).trace.macs  # by torch
    assert graph.macs(alive) == report.macs_after == counted < graph.trace.macs
    save_converted(tmp_path / "a.hdf5", slim)
    again = load_converted(tmp_path / "a.hdf5", build())
    assert again.r.input_size == slim.r.input_size
    with torch.no_grad():
        assert torch.equal(again(images), slim(images))


@pytest.mark.slow
def test_a_recurrent_layer_gets_narrower_while_it_trains() -> None:
    """What it makes of an image stays the same, and it goes on learning."""
    torch.manual_seed(0)
    forward, modules, _ = RECURRENT["LSTM of two layers, both ways"]
    pruner = pruner_of(lambda: Net(forward, **{"a": conv(3, 8), "b": conv(8, 6), **copy.deepcopy(modules)}), "all", 6)
    optimizer = torch.optim.SGD(pruner.param_groups(lr=0.01), momentum=0.9)
    pruner.attach(optimizer)
    losses(pruner, optimizer, 6, 2, seed=0)
    kill(pruner, 0.5)
    model, images = pruner.model.eval(), torch.randn(IMAGES, dtype=torch.float64)
    with torch.no_grad():
        before = model(images)
        pruner.narrow()
        torch.testing.assert_close(model(images), before)
    assert model.r.input_size == model.r.weight_ih_l0.shape[1] == model.r.weight_ih_l0_reverse.shape[1] == 3
    losses(pruner, optimizer, 6, 2, seed=1)


UNPRUNABLE: dict[str, Case] = {
    "weights that the loss reads too": (
        lambda net, x: read_out(net, x) + net.r.weight_ih_l0.mean(),
        {"r": nn.LSTM(6, 5), "fc": nn.Linear(5, 2)},
        "b",
    ),
    "a matrix that something else reads": (
        behind_b(lambda net, x: F.linear(net.a(x).permute(0, 2, 3, 1), net.w).permute(0, 3, 1, 2) * net.w.mean()),
        {"w": nn.Parameter(torch.randn(8, 8))},
        "a",
    ),
    "a constant at a matrix": (
        lambda net, x: net.fc(F.linear(net.b(net.a(x)).mean((2, 3)).sigmoid(), net.w)),
        {"w": nn.Parameter(torch.randn(6, 6))},
        "b",
    ),
    "attention, which keeps its width": (
        lambda net, x: net.fc(net.m(*[net.b(net.a(x)).flatten(2).permute(2, 0, 1)] * 3)[0].mean(0)),
        {"m": nn.MultiheadAttention(6, 2)},
        "b",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", UNPRUNABLE)
def test_what_no_columns_can_read_is_unprunable_with_a_reason(case: str) -> None:
    check_unprunable(*UNPRUNABLE[case])


MATRICES: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "a parameter": lambda net, x: F.linear(x, net.w),
    "twice": lambda net, x: F.linear(x, net.w) + F.linear(x.relu(), net.w),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_matrix_of_ones_own_reads_channels(name: str) -> None:
    function, w = MATRICES[name], nn.Parameter(torch.randn(6, 6))
    check_exact(lambda net, x: net.fc(function(net, net.b(F.relu(net.a(x))).mean((2, 3)))), {"w": w}, "a b")


def test_the_table_says_what_a_recurrent_layer_costs() -> None:
    forward, modules, _ = RECURRENT["LSTM"]
    table = explain(ChannelGraph(Net(forward, **{"a": conv(3, 8), "b": conv(8, 6), **modules}), torch.randn(IMAGES)))
    assert "the state of r, which keeps its size" in next(
        line for line in table.split("\n") if "r.weight_ih_l0" in line
    )
