"""How the scripts of this folder time what the method does."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from rr import ResRepPruner

MASK_INTERVAL = 200  # steps between mask updates: the method's default


def seconds(action: Callable[[], object]) -> float:
    """Seconds that an action takes, once."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def zero_gradients(pruner: ResRepPruner) -> None:
    """Give every compactor a gradient of zeros, for the pruner's hooks to work on."""
    for compactor in pruner.compactors.values():
        compactor.pwc.weight.grad = torch.zeros_like(compactor.pwc.weight)
