"""Tracing: models that can't be exported, heads that only training runs, and a model that stays as it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MethodType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rr import InputError
from rr.conversion import convert
from rr.graph import ChannelGraph, LiveModel
from rr.graph.trace import trace_model
from rr.weights import load_converted, save_converted
from tests.old_torch import fails_on_old_torch
from tests.rr.flows import behind_b, check_conversion, three
from tests.rr.networks import Net, conv, generic, head, insert_generic_compactors, random_alive

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "model",
    [
        Net(lambda net, x: net.fc(x) if x.sum() > 0 else net.fc(-x), fc=nn.Linear(4, 2)),
        Net(lambda net, x: net.fc(x.numpy()), fc=nn.Linear(4, 2)),
        nn.Linear(5, 2),
    ],
    ids=["branch on data", "not torch", "wrong inputs"],
)
def test_a_model_that_cannot_be_exported_is_a_users_mistake(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"can't be traced|fails when it is called"):
        ChannelGraph(model, torch.randn(2, 4))


@dataclass
class Answer(OrderedDict):
    """A dict that is a dataclass as well, as Hugging Face's ModelOutput."""

    scores: Tensor
    name: str = "a"

    def __post_init__(self) -> None:
        self["scores"] = self.scores


@dataclass
class Answers:
    first: Answer
    others: list[Tensor]


def test_inputs_in_a_dict_and_outputs_in_classes_of_the_users() -> None:
    def forward(net: Net, batch: dict[str, Tensor]) -> Answers:
        x = net.b(F.relu(net.a(batch["image"])))
        return Answers(Answer(head(net, x)), [x.mean((1, 2, 3))])

    torch.manual_seed(0)
    model = generic(three(forward))
    inputs = ({"image": IMAGES},)
    graph = ChannelGraph(model, inputs)
    assert graph.prunable[graph.layers["a"].out_units].all()
    check_conversion(model, graph, inputs)


class Switched(nn.Module):
    """Goes one way or another, as a buffer says."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = conv(3, 8), conv(8, 6), nn.Linear(6, 2)
        self.register_buffer("on", torch.tensor(True))
        self.register_buffer("steps", torch.tensor(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.on:
            x = F.relu(x)
        for _ in range(2 if self.steps > 1 else 0):
            x = x + 1.0 if self.on and self.steps < 2 else 2 * x
        return head(self, self.b(x))


def test_a_forward_may_branch_on_what_its_buffers_say() -> None:
    torch.manual_seed(0)
    model, images = Switched().eval(), torch.randn(2, 3, 6, 6)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    graph = ChannelGraph(model, images)
    assert graph.prunable[graph.layers["a"].out_units].all()
    assert list(state) == list(model.state_dict())
    check_conversion(model, graph, images)


class Reversed(torch.autograd.Function):
    """y1 = x1 + f(x2), y2 = x2, in place of which a backward pass works out x again."""

    @staticmethod
    def forward(ctx: object, x: Tensor, f: nn.Module, *parameters: Tensor) -> Tensor:
        x1, x2 = (half.contiguous() for half in x.chunk(2, 1))
        y = torch.cat((x1 + f(x2), x2), 1)
        x1.set_()
        return y


class Reversible(nn.Module):
    """A block that frees its input's memory, as RevNet's do."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(conv(4, 6), nn.BatchNorm2d(6), nn.ReLU(), conv(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = Reversed.apply(x, self.f, *self.f.parameters())
        x.data.set_()
        return y


@pytest.mark.slow
def test_a_forward_may_free_the_memory_of_what_it_has_read() -> None:
    model, images = generic(three(behind_b(lambda net, x: net.r(net.a(x))), r=Reversible())).eval(), IMAGES
    graph = ChannelGraph(model, images)
    for layer in ("a", "r.f.0", "r.f.3"):
        assert graph.prunable[graph.layers[layer].out_units].all()
    check_conversion(model, graph, images)


def test_no_graph_is_printed_where_a_model_can_not_be_traced(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = Switched()
    model.register_buffer("more", torch.tensor(1.0))
    model.register_forward_pre_hook(lambda net, args: (args[0] if args[0].sum() + net.more > 0 else -args[0],))
    with pytest.raises(ValueError, match="can't be traced"):
        ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert not "".join(capfd.readouterr())
    assert "Unable to find user code" not in caplog.text


def test_tracing_leaves_the_model_as_it_was() -> None:
    model = generic(three(behind_b(lambda net, x: net.n(net.a(x))), n=nn.BatchNorm2d(8))).train()
    model.n.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert model.training
    assert not model.n.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert np.isfinite([tensor.double().sum() for tensor in model.state_dict().values()]).all()


def test_a_layer_may_be_given_a_view_of_a_parameter() -> None:
    """Learned queries and start images, one for each example of the batch; the model's parameters still train."""

    def forward(net: Net, x: Tensor) -> Tensor:
        return net.fc((F.relu(net.a(x)) + F.relu(net.b(net.start.expand(len(x), -1, -1, -1)))).mean((2, 3)))

    model = Net(forward, a=conv(3, 8), b=conv(4, 8), fc=nn.Linear(8, 2))
    model.start = nn.Parameter(torch.randn(1, 4, 6, 6))
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert graph.prunable.sum() == 8
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda width: nn.InstanceNorm2d(width, affine=True)])
def test_a_block_that_stands_at_two_places_is_one(norm: Callable[[int], nn.Module], tmp_path: Path) -> None:
    """The forward calls it by its second name; it is narrowed at both, and a file of it can be read."""

    def build() -> Net:
        block = nn.Sequential(conv(3, 8), norm(8), nn.ReLU(), conv(8, 8, 1), norm(8), nn.ReLU())
        places = nn.ModuleList([nn.ReLU(), block])
        return Net(lambda net, x: head(net, net.second[1](x)), block=block, second=places, fc=nn.Linear(8, 2))

    torch.manual_seed(0)
    model, images = generic(build()), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert graph.prunable.sum() == 16
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    assert slim.second[1] is slim.block
    save_converted(tmp_path / "slim.hdf5", slim)
    loaded = load_converted(tmp_path / "slim.hdf5", build())
    torch.testing.assert_close(loaded(images), slim.eval()(images))


def test_heads_that_only_training_runs_are_narrowed_too() -> None:
    """GoogLeNet's way: they read the same channels, cost nothing in use, and still fit after the conversion."""

    def forward(net: Net, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(net.n(net.a(x)))
        y = head(net, F.relu(net.b(x)))
        return (y, net.aux(F.relu(net.c(x)).mean((2, 3)))) if net.training else y

    torch.manual_seed(0)
    model = generic(
        Net(
            forward,
            a=conv(3, 8),
            n=nn.BatchNorm2d(8),
            b=conv(8, 6),
            fc=nn.Linear(6, 2),
            c=conv(8, 10),
            aux=nn.Linear(10, 2),
        )
    )
    images = torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    with FlopCounterMode(display=False) as counter:
        model.eval()(images)
    assert graph.macs(np.ones(graph.num_units, dtype=bool)) == counter.get_total_flops() // (2 * len(images))
    assert graph.prunable[graph.layers["c"].out_units].all()

    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = convert(LiveModel(model, graph), images)
    assert report.float64_difference <= 1e-12
    model.training = slim.training = True  # their layers stay in eval mode
    with torch.no_grad():
        for ours, theirs in zip(slim(images), model(images), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_a_training_forward_that_can_not_be_traced_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        return net.aux(x.repeat(1, 1, 1, 2)[:, :, 10**6]) if net.training else head(net, x)

    model = Net(forward, a=conv(3, 8), fc=nn.Linear(8, 2), aux=conv(8, 2))
    graph = ChannelGraph(model, torch.randn(2, 3, 6, 6))
    assert graph.prunable.any()
    assert "aux.bias" in caplog.text


def test_sizes_that_depend_on_values_keep_what_passes_there() -> None:
    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.b(F.relu(net.a(x))).mean((2, 3))
        chosen = torch.ones(2, 3).view(-1).nonzero().squeeze(1)
        return net.fc(x[:, chosen])

    model, images = generic(three(forward)).eval(), torch.randn(2, 3, 6, 6)
    graph = ChannelGraph(model, images)
    assert graph.prunable[graph.layers["a"].out_units].all()
    reasons = {graph.reasons[int(unit)] for unit in graph.layers["b"].out_units}
    assert all("depends on values" in reason for reason in reasons)
    check_conversion(model, graph, images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (
            behind_b(lambda net, x: F.local_response_norm(net.a(x), 3)),
            "avg_pool3d in the model, which pools neighbouring",
        ),
        (
            behind_b(lambda net, x: F.conv2d(net.a(x), net.c.weight[:8])),
            "no plain layer: its weight is a part of a larger one",
        ),
        pytest.param(
            behind_b(lambda net, x: torch.cond(x.sum() > 0, torch.relu, torch.neg, (net.a(x),))),
            "through cond in the",
            marks=fails_on_old_torch("torch.cond can't be run beside our modes"),
        ),
    ],
)
def test_the_reasons_are_true(forward: Callable[[Net, Tensor], Tensor], reason: str) -> None:
    graph = ChannelGraph(three(forward, c=conv(8, 10)), torch.randn(2, 3, 6, 6))
    found = {graph.reasons[int(unit)] for unit in graph.layers["a"].out_units}
    assert any(reason in why for why in found), found


def hook_of_another_layer(model: nn.Sequential) -> None:
    model[0].register_forward_hook(lambda _, inputs, output: output * model[2].bias.mean())


def forward_in_a_closure(model: nn.Sequential) -> None:
    forward = model.forward
    model.forward = lambda x: forward(x) * 2


def hook_of_its_own_layer(model: nn.Sequential) -> None:
    model[0].register_forward_hook(lambda module, inputs, output: output * module.bias.mean())


def forward_as_a_method(model: nn.Sequential) -> None:
    model.forward = MethodType(lambda self, x: nn.Sequential.forward(self, x) * 2, model)


@pytest.mark.parametrize("change", [hook_of_another_layer, forward_in_a_closure])
def test_what_a_closure_shares_between_copies_is_found(change: Callable[[nn.Sequential], None]) -> None:
    """Copies would compute with the model's own weights, of whatever step it is at."""
    model = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4))
    change(model)
    with pytest.raises(InputError, match=r"a copy of the model still reads the model.s own .*bias"):
        trace_model(model, torch.randn(2, 3, 6, 6))


@pytest.mark.parametrize("change", [hook_of_its_own_layer, forward_as_a_method])
def test_what_is_bound_to_a_module_follows_it(change: Callable[[nn.Sequential], None]) -> None:
    model = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4))
    change(model)
    assert trace_model(model, torch.randn(2, 3, 6, 6)).macs > 0
