"""How a network is refitted."""

from __future__ import annotations

from dataclasses import dataclass

from rr.errors import InputError
from rr.settings import check_types


@dataclass(frozen=True)
class RefitConfig:
    """How a network is refitted.

    Attributes:
        rounds: to the target in so many steps; what is chosen and refitted is looked at anew in each.
        places: of an image in a layer, at most so many.
        ridge: what is added to the diagonal of the Gram matrices, as a share of it; None: for each layer, what
            foretells each half of the images best from the other one.
        memory: GiB that the activations of all images may take at a time; where they need more, each layer has all
            images run again up to it, which takes longer.
        seed: of the labels drawn.
        held_out: share of the inputs that decide nothing, and on which the report says what the refit is worth: the
            last batches that come nearest to it, one at least, but never all. 0: all are fitted to, and judged on.
    """

    rounds: int = 1
    places: int = 16
    ridge: float | None = None
    memory: float = 4.0
    seed: int = 0
    held_out: float = 0.1

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("rounds", "places"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.ridge is not None and not 0 < self.ridge < 1:
            raise InputError(f"ridge must be over 0 and under 1, not {self.ridge}: it keeps the least squares solvable")
        if not 0 <= self.held_out < 1:
            raise InputError(f"held_out must be at least 0 and under 1, a share of the inputs, not {self.held_out}")
        if not self.memory > 0:
            raise InputError(f"memory must be over 0 (GiB), not {self.memory}")
