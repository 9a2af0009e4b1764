"""Proofs of networks with forwards of all kinds: inputs that they take, casts, outputs that aren't all numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, ResRepPruner, paper_config
from rr.conversion import ConversionError
from rr.conversion.differences import difference_of
from rr.conversion.proof import exact_copy, measured_probes, outputs_of, probe_of
from rr.graph import ExampleInputs, LiveModel
from tests.rr.networks import Net, conv, generic, head, random_alive


def network(before: Callable = lambda x: x, after: Callable = lambda y: y) -> nn.Module:
    """A small one, with something before and after it."""

    def forward(net: Net, x: Tensor) -> object:
        return after(head(net, F.relu(net.b(F.relu(net.n(net.a(before(x))))))))

    torch.manual_seed(0)
    return generic(Net(forward, a=conv(3, 8), n=nn.BatchNorm2d(8), b=conv(8, 8), fc=nn.Linear(8, 3)))


def positive() -> Tensor:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.1


def image_bytes() -> Tensor:
    return torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


FORWARDS: dict[str, tuple[Callable, Callable, Callable]] = {
    "logarithm": (torch.log, lambda y: y, positive),
    "root": (torch.sqrt, lambda y: y, positive),
    "cast": (lambda x: x.float(), lambda y: y, positive),
    "bytes": (lambda x: x.float() / 255, lambda y: y, image_bytes),
    "logits in float32": (lambda x: x, lambda y: y.float(), positive),
    "a constant's type": (lambda x: x * torch.full((3, 1, 1), 0.1, dtype=torch.float32), lambda y: y, positive),
    "a number and a name": (lambda x: x, lambda y: {"logits": y, "stride": 8, "name": "a", "none": None}, positive),
    "signs": (lambda x: x, lambda y: (y, y > 0), positive),
    "the largest": (lambda x: x, lambda y: [y, y.argmax(1)], positive),
    "minus infinity": (lambda x: x, lambda y: y.masked_fill(torch.tensor([True, False, False]), -math.inf), positive),
    "nothing": (lambda x: x, lambda y: (y, y[:0]), positive),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARDS)
def test_pruned_and_proven_whatever_the_forward_takes_and_gives(name: str) -> None:
    before, after, examples = FORWARDS[name]
    model = network(before, after)
    pruner = ResRepPruner(model, examples(), paper_config(flops_target=0.5))
    assert pruner.selected.sum() == 16
    LiveModel(model, pruner.graph).zero_dead_rows(random_alive(pruner.graph, pruner.selected, 0.5))
    slim = pruner.convert()
    assert pruner.report.macs_ratio < 0.7
    assert pruner.report.float64_difference <= 1e-12
    inputs = ExampleInputs.of(examples())
    expected, found = (outputs_of(network, inputs, torch.float32) for network in (model, slim))
    assert difference_of(expected, found, rounded=True) < 1e-5


@pytest.mark.slow
def test_what_cannot_be_proven_is_said() -> None:
    with pytest.raises(ValueError, match="have NaN for random inputs and for the example inputs"):
        ResRepPruner(network(torch.log), -positive(), paper_config(flops_target=0.5))

    def of_one_type(x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError("float32 only")
        return x

    with pytest.raises(ValueError, match=r"doesn't run in float64 .*float32 only"):
        ResRepPruner(network(of_one_type), positive(), paper_config(flops_target=0.5))
    model = network()
    pruner = ResRepPruner(model, positive(), paper_config(flops_target=0.5))
    pruner.after_step()
    with torch.no_grad():
        model.fc.weight.fill_(math.nan)
    with pytest.raises((ValueError, ConversionError), match="training hasn't diverged"):
        pruner.convert()


def test_an_exact_copy_is_one_in_all_but_its_type() -> None:
    model = nn.Sequential(conv(1, 4), nn.BatchNorm2d(4), nn.Linear(4, 4), nn.Linear(4, 4)).bfloat16()
    model[3].weight = model[2].weight
    model[0].requires_grad_(False)
    exact, expected = exact_copy(model), copy.deepcopy(model).double()
    assert exact[3].weight is exact[2].weight
    assert exact[1].num_batches_tracked.dtype == torch.int64
    assert [parameter.requires_grad for parameter in exact.parameters()] == [False] * 2 + [True] * 5
    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in exact.state_dict().items())
    exact = exact_copy(model.double())
    assert not {tensor.data_ptr() for tensor in exact.parameters()} & {item.data_ptr() for item in model.parameters()}


def test_inputs_are_random_where_the_network_takes_them() -> None:
    plain = exact_copy(network())
    probe = probe_of(plain, positive())
    inputs, outputs = probe.inputs, probe.outputs
    assert inputs.tensors[0].min() < -1
    assert torch.equal(outputs[0], plain.eval()(inputs.tensors[0]))
    assert torch.equal(probe_of(plain, positive()).inputs.tensors[0], inputs.tensors[0])
    within = probe_of(exact_copy(network(torch.log)), positive()).inputs
    assert positive().min() <= within.tensors[0].min() < within.tensors[0].max() <= positive().max()
    assert not torch.equal(within.tensors[0], positive().double())
    assert torch.get_default_dtype() == torch.float32


def test_casts_in_a_proof_round_nothing() -> None:
    third = torch.full((1, 1), 1 / 3, dtype=torch.float64)
    model = Net(lambda net, x: x.half().float() + torch.zeros(1), w=nn.Linear(1, 1))
    assert outputs_of(model, ExampleInputs.of(third), torch.float64)[0].item() == 1 / 3
    assert outputs_of(model, ExampleInputs.of(third), torch.float32)[0].item() == float(np.float32(np.float16(1 / 3)))


def test_other_sizes_that_the_network_takes_are_probed_as_well() -> None:
    shapes = [probe.shape for probe in measured_probes(exact_copy(network()), positive())]
    assert shapes == ["2x3x8x8", "5x3x8x8", "1x3x15x8", "1x3x15x19", "1x3x5x5"]
    flat = nn.Sequential(conv(3, 4), nn.Flatten(), nn.Linear(256, 3))
    assert [probe.shape for probe in measured_probes(flat.double(), positive())] == ["2x3x8x8", "5x3x8x8"]

    def even(x: Tensor) -> Tensor:
        if x.shape[2] % 2 or x.shape[3] % 2 or len(x) != 2:
            raise ValueError("even sizes and batches of two")
        return x

    shapes = [probe.shape for probe in measured_probes(exact_copy(network(even)), positive())]
    assert shapes == ["2x3x8x8", "2x3x16x8", "2x3x16x16", "2x3x4x4"]


def test_what_is_drawn_at_random_is_the_same_each_time_and_leaves_the_process_its_own_numbers() -> None:
    noisy = network(after=lambda y: y + torch.randn_like(y)).double()
    inputs = ExampleInputs.of(positive().double())
    state = torch.get_rng_state()
    first, second = (outputs_of(noisy, inputs, torch.float64)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_outputs_that_say_nothing_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """All zero for the examples (a mask of nothing), or classes in place of logits: equal whatever happens before."""
    for after in (lambda y: y * 0, lambda y: y.argmax(1)):
        caplog.clear()
        measured_probes(exact_copy(network(after=after)), positive())
        assert "little is proven" in caplog.text
    caplog.clear()
    measured_probes(exact_copy(network()), positive())
    assert not caplog.text


def test_a_forward_that_keeps_tensors_of_one_type_is_a_users_mistake() -> None:
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        return x @ kept.setdefault(x.shape[-1], torch.eye(x.shape[-1]).to(x))

    with pytest.raises(InputError, match="doesn't run in float32"):
        measured_probes(exact_copy(network(keep)), positive())
