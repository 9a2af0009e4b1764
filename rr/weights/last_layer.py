"""A network's last layer, which has an output per class: no conversion makes it narrower, so a file must have as many.

Which outputs leave the network only a trace could tell. The layer that was built last is nearly always it, and where it
isn't (a user's class may build its head first), what else the file holds says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from rr.errors import InputError
from rr.weights.arrays import WeightFile
from rr.weights.plain_layers import MARK

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def check_last_layer(model: nn.Module, file: WeightFile, what: str) -> None:
    """Check that a converted file has as many outputs in the network's last layer as the full network has.

    Args:
        model: the full network.
        file: its arrays by the model's names.
        what: the file, for the message.

    Raises:
        InputError: if not.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS) and f"{name}.weight" in file.arrays and f"{name}.{MARK}" not in file.arrays
    }
    if not layers:
        return
    outputs = {name: Widths(len(layer.weight), len(file.arrays[f"{name}.weight"])) for name, layer in layers.items()}
    name, last = outputs.popitem()
    if last.held > last.full or (last.is_narrower and not _may_be_hidden(layers, file, last, list(outputs.values()))):
        raise InputError(
            f"{what} has {last.held} outputs in the last layer, {name}, and the model has {last.full}: build the model "
            f"with as many classes, {last.held}, or give a file of one with {last.full}"
        )


class Widths(NamedTuple):
    """How many channels a layer makes or reads, in the full network and in the file."""

    full: int
    held: int

    @property
    def is_narrower(self) -> bool:
        """Whether the file has fewer."""
        return self.held < self.full

    def are_read_as(self, inputs: Widths) -> bool:
        """Whether a layer with these inputs may read these outputs, all of them and none else; flattened, too."""
        each, rest = divmod(inputs.full, self.full)
        return rest == 0 and inputs.held == each * self.held


def _may_be_hidden(layers: Mapping[str, nn.Module], file: WeightFile, last: Widths, others: Sequence[Widths]) -> bool:
    """Whether another layer may read the last one, whose outputs a conversion can then have made fewer.

    Args:
        layers: all of them, the last one too.
        file: as in `check_last_layer`.
        last: outputs of the last layer.
        others: those of the other layers.
    """
    if file.deps is not None and isinstance(list(layers.values())[-1], nn.Linear):
        return file.deps[-1:] == [last.held]  # of linear layers the hidden ones are in it, last
    if "num_classes" in file.attributes:
        return file.attributes["num_classes"] != last.held
    inputs = [widths for widths in (_inputs(name, layer, file) for name, layer in layers.items()) if widths.is_narrower]
    # What reads no single other layer's outputs (those of several, or halves of them) may read the last one's.
    return any(last.are_read_as(own) or not any(widths.are_read_as(own) for widths in others) for own in inputs)


def _inputs(name: str, layer: nn.Module, file: WeightFile) -> Widths:
    weight = file.arrays[f"{name}.weight"]
    if isinstance(layer, nn.Linear) or layer.groups == 1:
        return Widths(layer.weight.shape[1], weight.shape[1])
    return Widths(len(layer.weight), len(weight))  # whole groups go, inputs and outputs alike
