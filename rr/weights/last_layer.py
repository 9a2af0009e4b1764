"""A network's last layer, which has an output per class: no conversion makes it narrower, so a file must have as many.

Which outputs leave the network only a trace could tell, so a file is judged by the number of classes that it names
itself, as the scripts' files do: a network that builds its head first, or ends in a layer of its own kind, must load.
"""

from __future__ import annotations

from torch import nn

from rr.errors import InputError
from rr.weights.arrays import WeightFile
from rr.weights.plain_layers import MARK

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def check_last_layer(model: nn.Module, file: WeightFile, what: str) -> None:
    """Check that a converted file of so many classes is loaded into a network of as many.

    Args:
        model: the full network.
        file: its arrays by the model's names.
        what: the file, for the message.

    Raises:
        InputError: if the network has another number.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS) and f"{name}.weight" in file.arrays and f"{name}.{MARK}" not in file.arrays
    }
    if "num_classes" not in file.attributes or not layers:
        return
    name, last = layers.popitem()
    full, held = len(last.weight), len(file.arrays[f"{name}.weight"])
    if file.attributes["num_classes"] == held != full:
        raise InputError(
            f"{what} has {held} outputs in the last layer, {name}, and the model has {full}: build the model "
            f"with as many classes, {held}, or give a file of one with {full}"
        )
