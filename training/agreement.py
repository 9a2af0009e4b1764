"""Several processes stop after the same step, though a signal reaches each of them when it will, or only one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from training.distributed import World
from training.stopping import StopRequests


class Agreement:
    """Whether all processes are to stop after a step: as soon as one of them was asked to.

    The question goes around between CPUs while the step is made: it costs no time, and no synchronisation with a GPU.

    Args:
        world: the processes.
        requests: this one's.
    """

    def __init__(self, world: World, requests: StopRequests) -> None:
        self._requests = requests
        self._is_alone = world.size == 1
        self._group = _group_of_cpus(world)
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._work: Any = None

    def ask(self) -> None:
        """At the start of a step."""
        if not self._is_alone:
            self._flag.fill_(self._requests.number is not None)
            self._work = distributed.all_reduce(self._flag, distributed.ReduceOp.MAX, group=self._group, async_op=True)

    def is_to_stop(self) -> bool:
        """At the end of the step: the same on every process."""
        if self._is_alone:
            return self._requests.number is not None
        if self._work is not None:
            self._work.wait()
            self._work = None
        return bool(self._flag.item())


def _group_of_cpus(world: World) -> distributed.ProcessGroup | None:
    """One of its own where the processes' is of GPUs; None: theirs."""
    if world.size == 1 or world.device.type != "cuda":
        return None
    return distributed.new_group(backend="gloo", timeout=timedelta(seconds=world.wait))
