"""The parts by name, in the order in which they are worth their time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.gpu_parts import compiled, device_tests, loading, paper_run, precision, processes, steps
from benchmarks.gpu_parts.setting import LEFT, Figures, Setting
from training import init_world, surroundings


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        work: what it does; figures that have `LEFT` say that it is not done.
        seconds: a guess of what it takes on a GPU; without so many left it isn't begun.
    """

    work: Callable[[Setting], Figures]
    seconds: int


PARTS = {
    "tests": Part(device_tests.measure, 90),
    "precision": Part(precision.measure, 90),
    "steps": Part(steps.measure, 150),
    "loading": Part(loading.measure, 60),
    "processes": Part(processes.measure, 60),
    "large_steps": Part(steps.measure_large, 300),
    "compiled": Part(compiled.measure, 300),
    "paper_run": Part(paper_run.measure, 120),
}


def run_part(name: str, setting: Setting) -> Figures:
    """Do one part; to be called in a process of its own.

    Args:
        name: of the part.
        setting: the call's.

    Returns:
        What its file is to hold.
    """
    began = time.perf_counter()
    torch.set_num_threads(torch.get_num_threads() if setting.device == "cuda" else 1)
    figures = PARTS[name].work(setting)
    if LEFT in figures:
        return figures
    return {
        "part": name,
        "dry_run": setting.dry_run,
        "seconds": round(time.perf_counter() - began, 1),
        "figures": figures,
        **surroundings(init_world(setting.device)),
    }
