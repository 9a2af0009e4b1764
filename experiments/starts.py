"""Where runs begin: settings besides the recipe's. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rr.config import ResRepConfig, cut_config
from rr.errors import InputError
from rr.settings import flat, setting
from training.options import check_choices

STARTS = ("gradual", "refit")
REFIT_IMAGES = 2000
GRADUAL = (  # settings of how channels die in training
    *("score", "per_mac", "mask_interval", "rows_per_update", "tighten_steps", "penalty", "masked_penalty"),
    *("death_steps", "proximal", "compactor_momentum", "narrow", "narrow_threshold", "compactors"),
)


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

    start: str = setting(
        "--fast: 'gradual', channels die while the network trains, or 'refit': it is cut at once and refitted on "
        "training images (as tools/prune_now.py does), and all of the run trains the narrow network",
        "gradual",
        topic="start",
        choices=STARTS,
        aliases=("begin",),  # torchrun takes --start for a short form of its own --start-method
    )
    refit_images: int = setting("start refit: training images that it is refitted on", REFIT_IMAGES, topic="start")

    def __post_init__(self) -> None:
        check_choices(self)
        if self.refit_images < 1:
            raise InputError(f"refit_images is {self.refit_images}: must be at least 1")
        if self.refit_images != REFIT_IMAGES and not self.is_cut:
            raise InputError("refit_images is for a run that begins with the cut: give start='refit' too")
        if self.is_cut and self.before_mask_epochs is not None:
            raise InputError("before_mask_epochs is for a gradual cut: leave it out, or give start='gradual'")
        if self.before_mask_epochs is not None and not 0 <= self.before_mask_epochs < math.inf:
            raise InputError(f"before_mask_epochs is {self.before_mask_epochs}: must be 0 or more")

    @property
    def is_cut(self) -> bool:
        """Whether the run begins with the cut."""
        return self.start == "refit"

    def check_suits(self, config: ResRepConfig) -> None:
        """Check that the method's settings go together with this start.

        Raises:
            InputError: if one is for the other start; it is named.
        """
        if not self.is_cut:
            return
        if config.selection.min_width < 1:
            raise InputError("min_width must be at least 1 with start='refit': whole blocks go in a gradual cut alone")
        expected = flat(cut_config())
        for name, value in flat(config).items():
            if name in GRADUAL and value != expected[name]:
                raise InputError(
                    f"{name} is {value}: with start='refit' the cut comes at once, so it must stay {expected[name]}; "
                    "leave it out, or give start='gradual'"
                )
