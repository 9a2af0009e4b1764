"""A file that says it has another number of classes than the network is no narrower network."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from rr import InputError, load_converted
from rr.weights import save_converted
from rr.weights.networks import note_widths


def network(classes: int, hidden: tuple[int, int] = (6, 5), *, head_first: bool = False) -> nn.Module:
    """A convolution and two linear layers; `head_first`: its last layer is built before the others."""
    first, second = hidden
    layers = {"conv": nn.Conv2d(3, first, 3), "fc": nn.Linear(first, second), "head": nn.Linear(second, classes)}
    order = ("head", "conv", "fc") if head_first else ("conv", "fc", "head")
    model = nn.Module()
    for name in order:
        model.add_module(name, layers[name])
    return model


@pytest.mark.parametrize("hidden", [(6, 5), (2, 4)], ids=["full", "narrow"])
@pytest.mark.parametrize("classes", [3, 12])
def test_another_number_of_classes_is_refused(classes: int, hidden: tuple[int, int], tmp_path: Path) -> None:
    save_converted(tmp_path / "a.hdf5", note_widths(network(classes, hidden), hidden), {"num_classes": classes})
    for name in ("a.hdf5", "a.pth"):
        told = rf"{name} has {classes} outputs in the last layer, head, and the model has 10: build the model"
        with pytest.raises(InputError, match=told):
            load_converted(tmp_path / name, network(10))
        assert load_converted(tmp_path / name, network(classes)).head.out_features == classes


@pytest.mark.parametrize("attributes", [{}, {"num_classes": 10}], ids=str)
def test_a_hidden_layer_that_was_built_last_may_be_narrower(attributes: dict[str, int], tmp_path: Path) -> None:
    narrow = note_widths(network(10, (2, 3), head_first=True), (2, 3))
    save_converted(tmp_path / "a.hdf5", narrow, attributes)
    assert load_converted(tmp_path / "a.hdf5", network(10, head_first=True)).fc.out_features == 3
