"""A file with another number of classes than the network is no narrower network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
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


@pytest.mark.parametrize("attributes", [{}, {"num_classes": 3}], ids=str)
@pytest.mark.parametrize("hidden", [(6, 5), (2, 4)], ids=["full", "narrow"])
@pytest.mark.parametrize("classes", [3, 12])
def test_another_number_of_classes_is_refused(
    classes: int, hidden: tuple[int, int], attributes: dict[str, int], tmp_path: Path
) -> None:
    save_converted(tmp_path / "a.hdf5", note_widths(network(classes, hidden), hidden), attributes)
    torch.save(network(classes, hidden).state_dict(), tmp_path / "bare.pth")
    for name in ("a.hdf5", "a.pth", "bare.pth"):
        with pytest.raises(
            InputError, match=rf"{name} has {classes} outputs in the last layer, head, and the model has"
        ):
            load_converted(tmp_path / name, network(10))
        assert load_converted(tmp_path / name, network(classes)).head.out_features == classes


def test_a_hidden_layer_that_was_built_last_may_be_narrower(tmp_path: Path) -> None:
    narrow = note_widths(network(10, (2, 3), head_first=True), (2, 3))
    save_converted(tmp_path / "a.hdf5", narrow)
    torch.save(narrow.state_dict(), tmp_path / "bare.pth")
    for name in ("a.hdf5", "bare.pth"):
        assert load_converted(tmp_path / name, network(10, head_first=True)).fc.out_features == 3


def test_what_reads_several_layers_may_read_the_last_one(tmp_path: Path) -> None:
    """Two branches that a third layer reads side by side; nothing in the file says that the last one is hidden."""

    def branches(left: int, right: int) -> nn.Module:
        model = nn.Module()
        for name, layer in (
            ("both", nn.Linear(left + right, 4)),
            ("a", nn.Linear(2, left)),
            ("b", nn.Linear(2, right)),
        ):
            model.add_module(name, layer)
        return model

    torch.save(branches(5, 3).state_dict(), tmp_path / "bare.pth")
    assert load_converted(tmp_path / "bare.pth", branches(8, 6)).b.out_features == 3


def test_of_a_convolution_the_files_classes_tell(tmp_path: Path) -> None:
    """A file's list of widths has all convolutions, the last one too; what reads several might read it."""

    def convolutions(left: int, right: int, classes: int) -> nn.Module:
        model = nn.Module()
        for name, layer in (("a", (3, left)), ("b", (3, right)), ("head", (left + right, classes))):
            model.add_module(name, nn.Conv2d(*layer, 1))
        return model

    save_converted(tmp_path / "a.hdf5", note_widths(convolutions(4, 3, 3), (4, 3, 3)), {"num_classes": 3})
    with pytest.raises(InputError, match="has 3 outputs in the last layer, head, and the model has 10"):
        load_converted(tmp_path / "a.hdf5", convolutions(6, 5, 10))
