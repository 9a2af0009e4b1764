"""What is planned before any training: layers, their least width, compactors; what can't be meant is told first."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, ResRepPruner, fast_config, paper_config
from rr.graph import ChannelGraph, explain
from rr.planning import plan
from tests.rr.networks import Net, conv, generic, head, tiny
from tests.rr.pruners import IMAGES, LENIENT, batch, randomise, tiny_pruner

NOISE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CONFIG = paper_config(flops_target=0.5)


@pytest.mark.slow
def test_a_pruner_takes_a_model_that_has_its_compactors() -> None:
    pruner = tiny_pruner()
    randomise(pruner)
    before = copy.deepcopy(pruner.model.state_dict())
    again = ResRepPruner(pruner.model, IMAGES, pruner.config)
    assert again.compactors == pruner.compactors
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.model.state_dict().items())
    assert (again.unmasked.alive == pruner.unmasked.alive).all()
    with pytest.raises(ValueError, match="compactors at other places"):
        ResRepPruner(pruner.model, IMAGES, paper_config(flops_target=0.8, include=("0",)))


@pytest.mark.slow
def test_a_model_that_was_compiled_before_goes_through_its_compactors() -> None:
    torch.manual_seed(0)
    model = generic(tiny()).train()
    compiled = torch.compile(model, backend="eager")
    images, _ = batch(0)
    plain = compiled(images)
    pruner = ResRepPruner(model, IMAGES, paper_config(**LENIENT))
    torch.testing.assert_close(compiled(images), plain)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight.mul_(0.5)
    assert not torch.allclose(compiled(images), plain, rtol=0.01)
    torch.testing.assert_close(compiled(images), model(images))


def residual() -> Net:
    """A block `a`, `b` that a residual bypasses, of 8 channels."""
    torch.manual_seed(0)
    modules = {"stem": conv(1, 8), "a": conv(8, 6), "b": conv(6, 8), "fc": nn.Linear(8, 3)}

    def forward(net: Net, x: Tensor) -> Tensor:
        x = F.relu(net.stem(x))
        return head(net, F.relu(x + net.b(F.relu(net.a(x)))))

    return Net(forward, **modules)


@pytest.mark.parametrize(("min_width", "inner", "others"), [(0, 0, 1), (1, 1, 1), (3, 3, 3)])
def test_each_group_keeps_its_least_width(min_width: int, inner: int, others: int) -> None:
    """At 0, blocks that a residual bypasses may go altogether, nothing else may."""
    planned = plan(residual(), IMAGES, paper_config(min_width=min_width, layers="all"))
    inside = [bool(group.producers == ("a",)) for group in planned.graph.groups]
    assert sum(inside) == 1
    assert planned.least.tolist() == [inner if is_inside else others for is_inside in inside]


@pytest.mark.parametrize(("share", "floors"), [(0.2, (2, 2)), (0.3, (2, 3)), (0.51, (4, 5)), (1.0, (6, 8))])
def test_a_floor_may_be_a_share_of_each_groups_width(share: float, floors: tuple[int, int]) -> None:
    planned = plan(residual(), IMAGES, paper_config(min_width=2, min_width_share=share, layers="all"))
    found = {group.producers: least for group, least in zip(planned.graph.groups, planned.least, strict=True)}
    assert (found["a",], found["stem", "b"]) == floors  # of 6 and of 8 channels


@pytest.mark.slow
def test_a_block_that_may_go_keeps_its_share_or_goes() -> None:
    """`a` of 6 channels at any target: none, or at least half; of others always half."""
    found = set()
    for target in (0.9, 0.7, 0.5, 0.35, 0.3):
        settings = {"flops_target": target, "rows_per_update": 1000, "layers": "all"}
        pruner = ResRepPruner(residual(), IMAGES, paper_config(**settings, min_width=0, min_width_share=0.5))
        with torch.no_grad():
            pruner.compactors["a"].pwc.weight.mul_(0.5)  # the first to go
        pruner.update_masks()
        stem, inner, stream = pruner.graph.widths(pruner.unmasked.alive)[:3]
        assert stem == stream >= 4
        found.add(inner)
    assert 0 in found
    assert found - {0}
    assert min(found - {0}) >= 3


@pytest.mark.slow
def test_layers_are_chosen_by_topic_and_by_name() -> None:
    def chosen(**settings: object) -> set[str]:
        planned = plan(residual(), IMAGES, paper_config(**settings))
        return {layer.name for layer in planned.graph.layers.values() if planned.selected[layer.out_units].any()}

    assert chosen() == {"a"}
    assert chosen(layers="all") == {"stem", "a", "b"}
    assert chosen(layers="all", exclude=("a",)) == {"stem", "b"}
    assert chosen(layers="all", include=("a",)) == {"a"}


@pytest.mark.slow
def test_it_is_said_why_a_layer_was_not_to_be_pruned() -> None:
    def why(**settings: object) -> dict[str, str]:
        report = ResRepPruner(residual(), IMAGES, paper_config(flops_target=0.9, **settings)).report
        return {layer.name: layer.stays for layer in report.layers if layer.name != "fc"}

    stream = "in a residual stream: layers 'all' prunes it"
    assert why() == {"stem": stream, "a": "", "b": stream}
    excluded = "left out by name: exclude 'b*'"
    assert why(layers="all", exclude=("b*",)) == {"stem": excluded, "a": "", "b": excluded}
    others = "left out by name: no pattern of include fits stem"
    assert why(layers="all", include=("a", "b")) == {"stem": others, "a": "", "b": others}


@pytest.mark.parametrize(("min_width", "is_prunable"), [(1, False), (5, False), (6, True)])
def test_a_rehearsal_goes_as_far_as_the_least_width(min_width: int, is_prunable: bool) -> None:
    """`view(len(x), 96)` takes six channels and no fewer; where six stay in any case, that is no fault."""
    model = Net(
        lambda net, x: net.fc(F.relu(net.b(F.relu(net.a(x)))).view(len(x), 96)),
        **{"a": conv(1, 8), "b": conv(8, 6), "fc": nn.Linear(96, 3)},
    )
    planned = plan(model, torch.randn(2, 1, 4, 4), paper_config(min_width=min_width))
    assert planned.selected[planned.graph.layers["a"].out_units].all()
    assert planned.selected[planned.graph.layers["b"].out_units].any() == is_prunable


def test_a_plan_leaves_the_model_as_it_is() -> None:
    model = generic(tiny()).train()
    before = copy.deepcopy(model.state_dict())
    plan(model, IMAGES, paper_config())
    assert model.training
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


NEEDS = [({}, ""), ({"narrow": "rows"}, "silence=True"), ({"narrow": "full"}, "silence=True")]
NEEDS += [({"compactors": "diagonal"}, "diagonal=True")]
NEEDS += [({"narrow": "rows", "compactors": "diagonal"}, "silence=True, diagonal=True")]


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "options"), NEEDS, ids=str)
def test_a_given_graph_has_the_compactors_that_the_config_asks_for(settings: dict[str, str], options: str) -> None:
    """One with more does too, and one that is traced now has no more than it needs."""
    model, config = generic(tiny()), paper_config(**settings)
    traced = plan(model, IMAGES, config).graph
    assert (traced.silence, traced.diagonal) == ("silence" in options, "diagonal" in options)
    for silence, diagonal in ((False, False), (True, False), (False, True), (True, True)):
        graph = ChannelGraph(model, IMAGES, silence=silence, diagonal=diagonal)
        if (silence or not traced.silence) and (diagonal or not traced.diagonal):
            assert plan(model, IMAGES, config, graph).selected.sum() == 14
        else:
            with pytest.raises(InputError, match=rf"build it with {options}$"):
                plan(model, IMAGES, config, graph)


def fails(x: Tensor) -> Tensor:
    raise RuntimeError("boom")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ResRepPruner("a name", NOISE, CONFIG), "must be an nn.Module with parameters, not str"),
        (lambda: ResRepPruner(NOISE, tiny(), CONFIG), "must be an nn.Module with parameters, not Tensor"),
        (lambda: ResRepPruner(nn.ReLU(), NOISE, CONFIG), "must be an nn.Module with parameters, not ReLU"),
        (lambda: ResRepPruner(tiny(), NOISE, "fast"), r"what fast_config\(\.\.\.\) or .* not str"),
        (lambda: ResRepPruner(tiny(), {"x": 1.0}, CONFIG), "example_inputs must be a tensor"),
        (lambda: ResRepPruner(tiny(), NOISE, CONFIG).attach(None), r"NoneType isn't a torch\.optim\.Optimizer"),
        (lambda: ResRepPruner(tiny(), NOISE, CONFIG).load_state_dict({"a": 1}), "isn't the state of a pruner"),
        (lambda: ResRepPruner(Net(lambda net, x: fails(x), a=conv(1, 4)), NOISE, CONFIG), r"inputs \(boom\)"),
        (lambda: ResRepPruner(tiny(), NOISE, CONFIG).load_state_dict(None), "isn't the state of a pruner"),
        (lambda: ResRepPruner(tiny(), None, CONFIG), "example_inputs must be a tensor"),
        (lambda: ResRepPruner(tiny(), NOISE[:0], CONFIG), r"batch dimension first \(at least 1\)"),
        (lambda: explain(tiny()), "explain takes a graph, not "),
        (lambda: fast_config(flops_target="50%"), "flops_target must be a number, not '50%'"),
        (lambda: fast_config(flops_target=[0.5]), r"flops_target must be a number or None, not \(0.5,\)"),
        (lambda: fast_config(width_multiple=2.5), "width_multiple must be a whole number, not 2.5"),
        (lambda: fast_config(min_width=True), "min_width must be a whole number, not True"),
        (lambda: fast_config(per_mac=1), "per_mac must be True or False, not 1"),
        (lambda: fast_config(penalty=None), "penalty must be a number, not None"),
        (lambda: fast_config(exclude="conv1"), "exclude must be a list of values, each a text, not 'conv1'"),
        (lambda: fast_config(threshold=0.02), "threshold must be from 0 to 0.01, far under the norms of living rows"),
        (lambda: fast_config(flops_target=0.5).for_run("100", lr=0.1), "total_steps and lr must be numbers"),
    ],
)
def test_what_cannot_be_meant_is_said(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize(
    ("change", "around", "message"),
    [
        (torch.jit.script, nullcontext(), "the model is TorchScript"),
        (lambda model: nn.Sequential(torch.jit.script(model[0]), *model[1:]), nullcontext(), "^0 is TorchScript"),
        (lambda model: model.to("meta"), nullcontext(), "no values"),
        (nn.Identity(), torch.inference_mode(), "inference_mode can be trained"),
        (nn.Identity(), torch.device("meta"), r"are on 'meta'.*with torch.device\('cpu'\)"),
    ],
    ids=["script", "scripted layer", "without values", "inference mode", "device"],
)
def test_what_no_pruner_can_be_built_of_or_in_is_told(
    change: Callable[[nn.Module], nn.Module], around: AbstractContextManager[object], message: str
) -> None:
    model = change(tiny())
    with around, pytest.raises(InputError, match=message):
        ResRepPruner(model, IMAGES, CONFIG)


def test_where_nothing_can_go_the_reasons_are_told() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(InputError, match="no prunable channels are left: 1: a channel of the network's output"):
        ResRepPruner(model, NOISE, CONFIG)
    quantised = Net(lambda net, x: F.conv2d(x, torch.fake_quantize_per_tensor_affine(net.a.weight, 0.1, 0, -8, 7)))
    quantised.a = conv(1, 8)
    with pytest.raises(InputError, match="left: meets what fake_quantize"):
        ResRepPruner(quantised, NOISE, CONFIG)
    summed = Net(lambda net, x: head(net, net.b(net.a(x).cumsum(1))), a=conv(1, 8), b=conv(8, 8), fc=nn.Linear(8, 3))
    with pytest.raises(InputError, match=r"can't be reached.*have to stay \(a: passes through cumsum"):
        ResRepPruner(summed, NOISE, paper_config(flops_target=0.2))


def with_a_scale(net: Net, x: Tensor, scale: float = 1.0, mask: Tensor | None = None, flag: bool = True) -> Tensor:
    x = net.n(net.d(net.a(x))).relu() * scale
    x = x if mask is None else x * mask
    return head(net, net.b(x) if flag else net.b(x).relu())


class WithKeywords(Net):
    def forward(self, *args: object, **kwargs: object) -> Tensor:
        return self.function(self, *args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "inputs",
    [
        (NOISE, 2.0),
        {"x": NOISE, "scale": 2.0},
        (NOISE, 2.0, None, False),
        {"x": NOISE, "mask": None, "flag": True},
        (NOISE, 2, torch.ones(2, 1, 8, 8)),
    ],
    ids=str,
)
def test_numbers_and_switches_among_the_inputs(inputs: object) -> None:
    """What dead channels leave is scaled by a number that may be another one at the next call."""
    torch.manual_seed(0)
    modules = {"a": conv(1, 8), "d": conv(8, 8, groups=8), "n": nn.BatchNorm2d(8), "b": nn.Conv2d(8, 8, 1)}
    model = generic(WithKeywords(with_a_scale, **modules, fc=nn.Linear(8, 3))).eval()
    pruner = ResRepPruner(model, inputs, paper_config(flops_target=0.9))
    pruner.live.zero_dead_rows(~pruner.selected | (torch.arange(pruner.graph.num_units) % 2 == 0).numpy())
    slim = pruner.convert()
    assert slim.a.out_channels == 4
    with torch.no_grad():
        for scale in (2.0, 3.0, -0.5) if "2.0" in str(inputs) else (1.0,):
            expected, found = model(NOISE, scale), slim(NOISE, scale)
            if "False" not in str(inputs):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pruner_can_be_copied_and_shown() -> None:
    pruner = ResRepPruner(tiny().bfloat16(), NOISE.bfloat16(), CONFIG)
    assert "1.0000 of the MACs" in repr(pruner)
    twin = copy.deepcopy(pruner.graph)
    assert twin is pruner.graph
    assert "18 of 18 units, 1.0000 of the MACs" in repr(pruner.unmasked)
