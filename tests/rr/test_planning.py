"""What is planned before any training: which layers, their least width, and where compactors go."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError, ResRepPruner, paper_config
from rr.graph import ChannelGraph
from rr.planning import plan
from tests.rr.networks import Net, conv, generic, head, tiny
from tests.rr.pruners import IMAGES, LENIENT, batch, randomise, tiny_pruner


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


def test_layers_are_chosen_by_topic_and_by_name() -> None:
    def chosen(**settings: object) -> set[str]:
        planned = plan(residual(), IMAGES, paper_config(**settings))
        return {layer.name for layer in planned.graph.layers.values() if planned.selected[layer.out_units].any()}

    assert chosen() == {"a"}
    assert chosen(layers="all") == {"stem", "a", "b"}
    assert chosen(layers="all", exclude=("a",)) == {"stem", "b"}
    assert chosen(layers="all", include=("a",)) == {"a"}


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
