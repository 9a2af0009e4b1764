"""Where runs begin: settings besides the recipe's. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rr.errors import InputError
from rr.settings import setting


@dataclass(frozen=True)
class BaseStart:
    """Where the training of a base network begins.

    Raises:
        InputError: for settings that don't go together.
    """

    weights: str | None = setting(
        "weights to start from: a file (.pth, .pt, .safetensors, .hdf5), or default for what torchvision or timm has "
        "to download; none: from scratch",
        None,
        topic="start",
    )
    new_classifier: bool = setting(
        "leave out the weights' classifier where it has another number of classes", False, topic="start"
    )

    def __post_init__(self) -> None:
        if self.new_classifier and self.weights is None:
            raise InputError("new_classifier is for weights that training starts from: give --weights too")


@dataclass(frozen=True)
class PruningStart:
    """Where pruning begins.

    Raises:
        InputError: for a value that can't be.
    """

    base_weights: str | None = setting(
        "weights of the trained network: a file, or default for what torchvision or timm has to download; none: the "
        "file that its own script writes",
        None,
        topic="start",
        flags=("--weights",),
    )
    before_mask_epochs: float | None = setting(
        "epochs before the masks' first interval begins; none: a share of the run, as fast_config has it",
        5.0,
        topic="start",
    )

    def __post_init__(self) -> None:
        if self.before_mask_epochs is not None and not 0 <= self.before_mask_epochs < math.inf:
            raise InputError(f"before_mask_epochs is {self.before_mask_epochs}: must be 0 or more")
