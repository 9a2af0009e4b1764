"""What training steps of one network's variants take, while the widths of a pruning run fall: time, memory, profile."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.cost.timing import MASK_INTERVAL, seconds, zero_gradients
from benchmarks.cost.training_figures import (
    FLOOR,
    FULL,
    FULL_WIDTH,
    PLAIN,
    ROWS,
    VARIANTS,
    Figures,
    bars,
    paired_ratio,
    whole_runs,
)
from benchmarks.cost.training_variants import Setting, Training, kill, narrow_plain, training_of
from experiments.tuning.narrowed import RandomDeaths
from rr import ResRepPruner
from rr.errors import InputError
from training.allocator import keep_freed_memory

KINDS = {  # of operations in a profile: words in torch's names for them
    "convolutions": ("convolution", "conv2d"),
    "matrix products": ("addmm", "linear"),
    "batch norm": ("batch_norm",),
    "elementwise": ("relu", "clamp", "threshold", "::add", "::mul", "hardtanh"),
    "casts and copies": ("copy_", "_to", "::to", "empty", "resize", "fill_", "zero_"),
}


def measure(setting: Setting) -> Figures:
    """The figures of one network except its memory; times are in milliseconds, ratios over the plain step."""
    torch.set_num_threads(setting.threads)
    keep_freed_memory()  # as in the project's own loop
    trainings = {variant: training_of(variant, setting) for variant in VARIANTS[:-1]}
    rows = trainings[ROWS].pruner
    schedule = RandomDeaths(rows)
    points, all_times, hooks = [], [], {}
    for progress in np.linspace(0, 1, setting.points).tolist():
        point, times = at_widths(trainings, schedule.alive_at(progress), progress, setting)
        points.append(point)
        all_times += times
        if progress == 0:
            hooks["full width"] = hooks_cost(rows, point["ms"][ROWS], setting.rounds)
    hooks["at the target"] = hooks_cost(rows, points[-1]["ms"][ROWS], setting.rounds)
    update_ms = 1000 * statistics.median(seconds(trainings[FULL_WIDTH].pruner.update_masks) for _ in range(5))
    plain_ms = 1000 * statistics.median(times[PLAIN] for times in all_times)
    narrow_ms = {name: statistics.median(point["narrow_ms"][name] for point in points[1:]) for name in (ROWS, FULL)}
    between_steps = {name: (update_ms + each) / MASK_INTERVAL / plain_ms for name, each in narrow_ms.items()}
    figures = {
        **asdict(setting),
        "flops_target": setting.config.target.flops,
        "points": points,
        "no_narrowing": paired_ratio(all_times, FULL_WIDTH),
        "over_floor": points[-1]["over_floor"],
        "hooks": hooks,
        "mask_update_ms": update_ms,
        "profile": {name: profile(trainings[name]) for name in (PLAIN, FULL_WIDTH, FULL, FLOOR)},
        "between_steps": between_steps,
        "whole_run": whole_runs(points, between_steps),
    }
    return figures | {"bars": bars(figures)}


def at_widths(
    trainings: dict[str, Training], alive: np.ndarray, progress: float, setting: Setting
) -> tuple[Figures, list[dict[str, float]]]:
    """Take the dead units out, and time steps of all variants at the widths that are left.

    Args:
        trainings: by variant; gets a plain network of these widths, the floor.
        alive: [num_units] of bool.
        progress: the share of the way from full width to the target.
        setting: the network, and how it is trained.

    Returns:
        The figures of this point of the schedule, and the seconds of a step by variant, for each round.
    """
    rows = trainings[ROWS].pruner
    narrow_seconds = {name: kill(trainings[name], alive) for name in (ROWS, FULL)}
    first_seconds = {name: seconds(trainings[name].step) for name in (ROWS, FULL)}
    trainings[FLOOR] = Training(setting, narrow_plain(rows))
    # Most steps of a whole run are at the last widths, so these are timed more often.
    times = timed_in_turn(trainings, setting.warmup, 3 * setting.rounds if progress == 1 else setting.rounds)
    medians = {name: statistics.median(of_round[name] for of_round in times) for name in VARIANTS}
    # The first step after a narrowing takes longer, as kernels are prepared for the new shapes.
    excess = {name: max(0.0, first - medians[name]) for name, first in first_seconds.items()}
    point = {
        "progress": progress,
        "masked": int((~alive).sum()),
        "taken_out": int(rows.live.remaining.removed.sum()),
        "macs_ratio": rows.remaining.macs_ratio,
        "ms": {name: 1000 * median for name, median in medians.items()},
        "ratios": {name: paired_ratio(times, name) for name in VARIANTS[1:]},
        "over_floor": {name: paired_ratio(times, name, FLOOR) for name in (ROWS, FULL)},
        "narrow_ms": {name: 1000 * (narrow_seconds[name] + excess[name]) for name in (ROWS, FULL)},
    }
    return point, times


def peak_memory(variant: str, setting: Setting) -> Figures:
    """MiB that a process holds at most while it trains one variant at its last widths.

    To be called in a process of its own.

    Args:
        variant: one of `VARIANTS`.
        setting: the network, and how it is trained.

    Returns:
        mib: in the steps, less what Python and its libraries take once they have traced and trained a network.
        whole_process_mib: with that.
        with_setup: whether the maximum is that of the time before the steps too, as the system couldn't forget it.
        Empty on systems without /proc.
    """
    torch.set_num_threads(setting.threads)
    if not Path("/proc/self/status").exists():
        return {}
    training_of(FLOOR, replace(setting, batch=2), at_target=True).step()
    _give_back_memory()
    before = _status_mib("VmRSS")
    training = training_of(variant, setting, at_target=True)
    _give_back_memory()
    with_setup = False
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the maximum starts again
    except OSError:
        with_setup = True
    for _ in range(3):
        training.step()
    peak = _status_mib("VmHWM")
    return {"mib": peak - before, "whole_process_mib": peak, "with_setup": with_setup}


def timed_in_turn(trainings: dict[str, Training], warmup: int, rounds: int) -> list[dict[str, float]]:
    """Seconds of a step of each training, round by round; each round begins with another of them.

    Args:
        trainings: by name.
        warmup: untimed steps of each.
        rounds: timed steps of each.

    Returns:
        [rounds], the seconds by name.
    """
    for _ in range(warmup):
        for training in trainings.values():
            training.step()
    names = list(trainings)
    found = []
    for number in range(rounds):
        start = number % len(names)
        found.append({name: seconds(trainings[name].step) for name in names[start:] + names[:start]})
    return found


def hooks_cost(pruner: ResRepPruner, step_ms: float, rounds: int) -> Figures:
    """Milliseconds of what the pruner does before and after an optimiser's step, and their share of a whole one."""
    times = []
    for _ in range(rounds):
        zero_gradients(pruner)
        times.append(seconds(pruner.adjust_gradients) + seconds(pruner.after_step))
    pruner.model.zero_grad(set_to_none=True)
    ms = 1000 * statistics.median(times)
    return {"ms": ms, "share_of_step": ms / step_ms}


def profile(training: Training, steps: int = 5) -> Figures:
    """Milliseconds of a step that each kind of operation takes by itself, as torch's profiler counts them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            training.step()
    found = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profiler.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key for word in words)), "other")
        found[kind] += event.self_cpu_time_total / 1000 / steps  # microseconds
    return found


def _give_back_memory() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc: what was freed still counts
        ctypes.CDLL(None).malloc_trim(0)


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024  # kB in the file
    raise InputError(f"/proc/self/status has no {name}")
