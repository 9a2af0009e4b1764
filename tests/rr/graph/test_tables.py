"""Hand-written tables in the trace's place: the same units, the same narrow network, and wrong tables are noticed."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from base_model import build_model, full_widths
from rr import ResRepPruner, compactor_convert, compactor_convert_mi1, explain, paper_config
from rr.compactors import find_compactors
from rr.conversion import ConversionError
from rr.graph import ChannelGraph, LayerTables
from rr.weights import read_hdf5
from tests.long_cases import all_long_but
from tests.rr.networks import SIZES, Networks, insert_generic_compactors, random_alive

NAMES = ["src20", "vc", "lenet5bn", "smi1_cifar"]


def as_documented(table: dict[int, list[int]]) -> dict[int, int | list[int]]:
    """A single successor is written as a plain number."""
    return {layer: followers[0] if len(followers) == 1 else followers for layer, followers in table.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_graph_of_the_traced_tables_is_the_traced_graph(name: str, traced: Networks) -> None:
    model, images, graph = traced[name]
    tables = as_documented(graph.succeeding_strategy()), graph.follow_dict()
    table_graph = ChannelGraph(model, images, tables=LayerTables(full_widths(name), *tables))
    assert as_documented(table_graph.succeeding_strategy()) == tables[0]
    assert table_graph.prunable.sum() == graph.prunable.sum()
    for seed in range(3):
        alive = random_alive(graph, graph.prunable, 0.5, seed)
        by_tables = np.ones(table_graph.num_units, dtype=bool)
        for layer in graph.layers:
            by_tables[table_graph.layers[layer].out_units] = alive[graph.layers[layer].out_units]
        assert table_graph.widths(by_tables) == graph.widths(alive)
        assert table_graph.macs(by_tables) == graph.macs(alive)


@pytest.mark.slow
@pytest.mark.parametrize("name", all_long_but(NAMES, "lenet5bn", "src20"))
def test_conversion_by_tables_equals_the_traced_one(name: str, traced: Networks, tmp_path: Path) -> None:
    plain, images, graph = traced[name]
    model = copy.deepcopy(plain)
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = compactor_convert(
        model,
        full_widths(name),
        1e-5,
        as_documented(graph.succeeding_strategy()),
        graph.follow_dict(),
        example_inputs=images,
        save_path=tmp_path / "converted.hdf5",
    )
    assert list(report.widths) == graph.widths(alive) == read_hdf5(tmp_path / "converted.hdf5").deps
    assert report.float64_difference <= 1e-12
    narrow = build_model(name, report.widths, num_classes=10, image_size=SIZES[name], folded=True)
    narrow.load_state_dict(slim.state_dict())


@pytest.mark.slow
def test_tables_of_the_convolutions_alone_leave_the_hidden_linear_layer_whole(traced: Networks, tmp_path: Path) -> None:
    """As the original's VGG example has them: 13 widths; the last convolution is read by layer 13, which is linear."""
    plain, images, graph = traced["vc"]
    convolutions = full_widths("vc")[:13]
    alive = random_alive(graph, graph.prunable, 0.5)
    alive[graph.layers["linear1"].out_units] = True
    model = copy.deepcopy(plain)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    slim, report = compactor_convert(
        model, convolutions, 1e-5, {layer: layer + 1 for layer in range(13)}, example_inputs=images
    )
    assert list(report.widths)[:13] == graph.widths(alive)[:13] < convolutions
    assert slim.linear1.weight.shape == (plain.linear1.out_features, report.widths[12])
    assert report.float64_difference <= 1e-12
    unknown = ChannelGraph(plain, images, tables=LayerTables(convolutions, {layer: layer + 1 for layer in range(13)}))
    assert "deps don't have this layer" in str(explain(unknown))


def test_mobilenet_has_the_same_converter() -> None:
    assert compactor_convert_mi1 is compactor_convert


@pytest.mark.slow
def test_a_table_without_a_reader_is_caught_by_the_proof(traced: Networks) -> None:
    plain, images, graph = traced["src20"]
    model = copy.deepcopy(plain)
    alive = random_alive(graph, graph.prunable, 0.5)
    insert_generic_compactors(model, graph, graph.prunable, alive)
    wrong = as_documented(graph.succeeding_strategy())
    wrong[6] = 7  # the first block of stage 2 reads the stream as well
    with pytest.raises((ConversionError, RuntimeError)):
        compactor_convert(model, full_widths("src20"), 1e-5, wrong, graph.follow_dict(), example_inputs=images)


@pytest.mark.slow
def test_the_users_own_macs_decide(traced: Networks) -> None:
    plain, images, graph = traced["src20"]
    model = copy.deepcopy(plain)
    calls = []

    def macs_of_deps(deps: list[int]) -> int:
        calls.append(deps)
        return sum(deps)  # anything that falls with the widths

    tables = as_documented(graph.succeeding_strategy()), graph.follow_dict()
    table_graph = ChannelGraph(model, images, tables=LayerTables(full_widths("src20"), *tables, macs_of_deps))
    config = paper_config(flops_target=0.8, rows_per_update=1000)
    pruner = ResRepPruner(model, images, config, graph=table_graph)
    for compactor in pruner.compactors.values():
        with torch.no_grad():
            compactor.pwc.weight.mul_(torch.rand(len(compactor.mask), 1, 1, 1))
    pruner.update_masks()
    full = sum(full_widths("src20"))
    assert 0.8 * full - 1 < sum(table_graph.widths(pruner.unmasked.alive)) <= 0.8 * full
    assert all(len(deps) == len(full_widths("src20")) for deps in calls)


@pytest.mark.slow
def test_tables_have_the_compactors_that_the_config_asks_for(traced: Networks) -> None:
    plain, images, graph = traced["src20"]
    tables = full_widths("src20"), as_documented(graph.succeeding_strategy()), graph.follow_dict()
    config = paper_config(flops_target=0.8, compactors="diagonal", narrow="rows")
    for given, words in (({}, "silence=True, diagonal=True"), ({"silence": True}, "diagonal=True")):
        with pytest.raises(ValueError, match=words):
            ResRepPruner(plain, images, config, graph=ChannelGraph(plain, images, tables=LayerTables(*tables), **given))
    assert not find_compactors(plain)

    model = copy.deepcopy(plain)
    table_graph = ChannelGraph(model, images, tables=LayerTables(*tables), silence=True, diagonal=True)
    pruner = ResRepPruner(model, images, config, graph=table_graph)
    assert all(compactor.pwc.weight[0].numel() == 1 for compactor in pruner.compactors.values())
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight[::2] = 0
    slim, report = compactor_convert(model, tables[0], 1e-5, *tables[1:], example_inputs=images)
    assert report.macs_ratio < 0.6
    with torch.no_grad():
        assert torch.allclose(slim.eval()(images), model.eval()(images), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deps", "succeeding", "follow", "message"),
    [
        ([16] * 21, {1: 2}, {}, "deps don't fit"),
        (None, {1: 40}, {}, "layers 0 to 21"),
        (None, {1: 2}, {8: 0}, "widths differ"),
        (None, {0: 9}, {}, "can't give"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    deps: list[int] | None, succeeding: dict, follow: dict, message: str, traced: Networks
) -> None:
    model, images, _ = traced["src20"]
    with pytest.raises(ValueError, match=message):
        ChannelGraph(model, images, tables=LayerTables(deps or full_widths("src20"), succeeding, follow))


def test_a_model_without_compactors_is_refused(traced: Networks) -> None:
    model, images, _ = traced["src20"]
    with pytest.raises(ValueError, match="no compactors"):
        compactor_convert(model, full_widths("src20"), 1e-5, {1: 2}, example_inputs=images)
