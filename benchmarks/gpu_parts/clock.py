"""Milliseconds on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def milliseconds(action: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """What one call of an action takes, of several one after the other, until the device is done with all.

    On a GPU between two events, so that what is still to be done for earlier work isn't counted. The calls aren't
    waited for one by one, as a training loop doesn't.
    """
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(times):
            action()
        return 1000 * (time.perf_counter() - began) / times
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    for _ in range(times):
        action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / times


def in_turn(
    actions: Mapping[str, Callable[[], object]], device: torch.device, *, warmup: int, rounds: int, times: int
) -> list[dict[str, float]]:
    """Milliseconds of a call of each action, round by round; each round begins with another of them.

    Args:
        actions: by name.
        device: where they work.
        warmup: calls of each before those that are timed.
        rounds: how many.
        times: calls of each in a round.
    """
    names = list(actions)
    for name in names:
        for _ in range(warmup):
            actions[name]()
    found = []
    for number in range(rounds):
        start = number % len(names)
        order = names[start:] + names[:start]
        found.append({name: milliseconds(actions[name], device, times) for name in order})
    return found
