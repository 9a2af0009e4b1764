"""A network's last layer, which has an output per class: no conversion makes it narrower, so a file must have as many.

Which outputs leave the network only a trace could tell. The layer that was built last is nearly always it, and where it
isn't (a user's class may build its head first), what else the file holds says so.
"""

from __future__ import annotations

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
    built = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS) and f"{name}.weight" in file.arrays and f"{name}.{MARK}" not in file.arrays
    ]
    if not built:
        return
    name, layer = built[-1]
    held, full = len(file.arrays[f"{name}.weight"]), len(layer.weight)
    if held > full or (held < full and not _may_be_hidden(model, file, name, layer, held)):
        raise InputError(
            f"{what} has {held} outputs in the last layer, {name}, and the model has {full}: build the model with as "
            f"many classes, {held}, or give a file of one with {full}"
        )


def _may_be_hidden(model: nn.Module, file: WeightFile, name: str, layer: nn.Module, held: int) -> bool:
    """Whether other layers may read the last one, whose outputs a conversion can then have made fewer.

    Args:
        model, file: as in `check_last_layer`.
        name, layer: the last layer.
        held: its outputs in the file.
    """
    if file.deps is not None and isinstance(layer, nn.Linear):
        return file.deps[-1:] == [held]  # of linear layers the hidden ones are in it, last
    if "num_classes" in file.attributes:
        return file.attributes["num_classes"] != held
    others = {n: tensor.shape for n, tensor in model.state_dict().items() if n.rpartition(".")[0] != name}
    return any(tuple(file.arrays[n].shape) != tuple(shape) for n, shape in others.items() if n in file.arrays)
