"""Training loss, accuracy and speed, added up on the device and read now and then."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from training.distributed import World, all_reduce_min, all_reduce_sum
from training.evaluation import Evaluation, sum_dtype, to_evaluation

_NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Look:
    """What came since the look before, all processes together.

    Attributes:
        train: means.
        speed: in examples per second.
    """

    train: Evaluation
    speed: float


class Meter:
    """Sums over the epoch so far and since the last look, and the first step whose loss wasn't finite.

    `add` never waits for the device; what returns numbers does, and must be called on all processes together.

    Args:
        world: the processes.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._epoch = torch.zeros(4, dtype=sum_dtype(world.device), device=world.device)
        self._recent = torch.zeros_like(self._epoch)
        self._timed = torch.zeros_like(self._epoch)
        self._first_bad = torch.full((), _NEVER, dtype=torch.int64, device=world.device)
        self.start_clock()

    def start_clock(self) -> None:
        """Time the examples from now on; to be called after anything that isn't training."""
        self._timed.zero_()
        self._since = time.perf_counter()

    def add(self, sums: torch.Tensor, step: int) -> None:
        """Count one step's `evaluation.batch_sums` of this process."""
        for total in (self._epoch, self._recent, self._timed):
            total += sums
        self._first_bad = torch.where(sums[0].isfinite(), self._first_bad, self._first_bad.clamp(max=step))

    def first_bad_step(self) -> int | None:
        """The first step with a loss that isn't finite, on any process."""
        step = int(all_reduce_min(self._world, self._first_bad))
        return None if step == _NEVER else step

    def look(self) -> Look | None:
        """What came since the last look; None if nothing did."""
        recent, timed = all_reduce_sum(self._world, torch.stack([self._recent, self._timed])).tolist()
        speed = timed[3] / (time.perf_counter() - self._since)
        self._recent.zero_()
        self.start_clock()
        return Look(to_evaluation(recent), speed) if recent[3] else None

    def epoch(self) -> Evaluation | None:
        """Means over the epoch so far; None if no step of it was counted."""
        sums = all_reduce_sum(self._world, self._epoch).tolist()
        return to_evaluation(sums) if sums[3] else None

    def new_epoch(self) -> None:
        """Forget the epoch's sums."""
        self._epoch.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Sums of all processes, as plain numbers."""
        epoch, recent = all_reduce_sum(self._world, torch.stack([self._epoch, self._recent])).tolist()
        return {"epoch": epoch, "recent": recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the sums of all processes, which rank 0 takes over."""
        if self._world.is_first:
            self._epoch.copy_(torch.tensor(state["epoch"], dtype=self._epoch.dtype))
            self._recent.copy_(torch.tensor(state["recent"], dtype=self._recent.dtype))
