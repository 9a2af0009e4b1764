"""Milliseconds of a training step: plain, with compactors, narrowed, and the floor, as the CPU's figures have them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from benchmarks.cost.training_figures import FLOOR, FULL, FULL_WIDTH, PLAIN, ROWS, paired_ratio
from benchmarks.cost.training_variants import Setting as Network
from benchmarks.cost.training_variants import Training, training_of
from benchmarks.gpu_parts.attempt import attempted
from benchmarks.gpu_parts.clock import in_turn
from benchmarks.gpu_parts.setting import Figures, Setting
from training import init_world
from training.recording import CudaGraphs

AT_TARGET = (ROWS, FULL, FLOOR)  # PLAIN and FULL_WIDTH have the full widths


@dataclass(frozen=True)
class Case:
    """One network in one precision.

    Attributes:
        network: how it is trained.
        is_recorded: whether its steps are timed as replays of CUDA graphs too; a large network's take memory for that.
    """

    network: Network
    is_recorded: bool


def measure(setting: Setting) -> Figures:
    """src56 at both batches of the recipes, in both precisions."""
    if setting.dry_run:
        tiny = Network("src8", "float32", batch=4, image_size=16)
        return times_of({"src8, 4 images, float32": Case(tiny, False)}, setting)
    cases = {}
    for batch in (64, 128):
        for precision in ("float32", "bfloat16"):
            cases[f"src56, {batch} images, {precision}"] = Case(Network("src56", precision, batch=batch), True)
    return times_of(cases, setting)


def measure_large(setting: Setting) -> Figures:
    """sres50 at the paper's batch."""
    batch, size = (2, 32) if setting.dry_run else (256, 224)
    network = Network("sres50", "bfloat16", batch=batch, image_size=size)
    return times_of({f"sres50, {batch} images, bfloat16": Case(network, False)}, setting)


def times_of(cases: Mapping[str, Case], setting: Setting) -> Figures:
    """All cases by name; the widths are those of the target, dead units drawn at random."""
    torch.backends.cudnn.benchmark = True  # as in the project's own loop
    device = init_world(setting.device).device
    rounds, times = (2, 1) if setting.dry_run else (15, 5)
    found = {}
    for name, case in cases.items():
        case = replace(case, network=replace(case.network, width_multiple=1, device=setting.device))
        found[name] = attempted(partial(figures_of, case, device, rounds, times))
    return found


def figures_of(case: Case, device: torch.device, rounds: int, times: int) -> Figures:
    """One network's milliseconds and ratios, its steps launched one by one and, where that is asked for, recorded."""
    names = (PLAIN, FULL_WIDTH, *AT_TARGET)
    trainings = {name: training_of(name, case.network, at_target=name in AT_TARGET) for name in names}
    shown = ("model", "precision", "batch", "image_size", "width_multiple")
    found: Figures = {name: getattr(case.network, name) for name in shown}
    found["macs_ratio"] = trainings[ROWS].pruner.remaining.macs_ratio
    steps = {name: training.step for name, training in trainings.items()}
    found["launched"] = summary(in_turn(steps, device, warmup=3, rounds=rounds, times=times))
    if device.type == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    if case.is_recorded:
        found["recorded"] = attempted(lambda: recorded_figures(trainings, device, rounds, times))
    return found


def recorded_figures(trainings: dict[str, Training], device: torch.device, rounds: int, times: int) -> Figures:
    """The same steps as replays; the rates are written into them, as these steps are all at one rate."""
    recorder = CudaGraphs(device)
    replays: dict[str, Callable[[], None]] = {}
    for name, training in trainings.items():
        with recorder.in_order():
            for _ in range(3):
                training.step()
            replays[name] = recorder.record(training.step)
    with recorder.in_order():
        return summary(in_turn(replays, device, warmup=3, rounds=rounds, times=times))


def summary(rounds: list[dict[str, float]]) -> Figures:
    """Medians of a step in milliseconds, and what each costs over the plain one and over the floor."""
    names = list(rounds[0])
    return {
        "ms": {name: statistics.median(of_round[name] for of_round in rounds) for name in names},
        "over_plain": {name: paired_ratio(rounds, name) for name in names if name != PLAIN},
        "over_floor": {name: paired_ratio(rounds, name, FLOOR) for name in (ROWS, FULL)},
    }
