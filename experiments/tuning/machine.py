"""What may be chosen for a run on this machine, whether that is worth its time, and the recipe with the choice."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from data import Data
from experiments.call import Call
from experiments.tuning.search import Choice, Freedom, MachineSetting, StepTime, choose
from experiments.tuning.workers import TimingFailed, Trainee, Workers
from rr import ResRepConfig
from training import Recipe, check_fits, count_macs, network_builder

LEAST_FLOPS = 5e13  # of a run: 5 to 10 minutes of a core of 2023. Counted, not timed: the same on every machine
OPERATIONS_OF_A_MAC = 6  # in training: 2 in the forward pass, and the backward pass takes twice that
LEAST_IMAGES = 16  # of a process: BN's statistics are those of its part
MOST_SECONDS = 300.0  # for the first setting, and for a compiled one
LEAST_LIMIT, TOO_SLOW = 20.0, 10  # for another one: seconds, or so many times the quickest first step
CHOSEN = ("processes", "threads", "amp", "channels_last", "compile")

logger = logging.getLogger(__name__)


def with_stored_choice(recipe: Recipe, stored: Mapping[str, Any] | None, call: Call) -> Recipe:
    """The recipe with what the run in its folder chose, where the command line doesn't say otherwise."""
    if stored is None or not stored.get("tune", False):
        return recipe
    return replace(recipe, **{name: stored[name] for name in CHOSEN if name in stored and name not in call.typed})


def in_words(recipe: Recipe) -> str | None:
    """How a run uses the CPU, where that was chosen or given; else None."""
    if recipe.processes is None or recipe.threads is None:
        return None
    return str(MachineSetting(**{name: getattr(recipe, name) for name in CHOSEN}))


def is_worth_it(recipe: Recipe, data: Data) -> bool:
    """Whether a run is so long that some seconds of timing are nothing beside it."""
    model = network_builder(recipe.arch, data)().eval()
    check_fits(model, data)
    macs = count_macs(model, torch.zeros(1, data.in_channels, data.image_size, data.image_size))
    return OPERATIONS_OF_A_MAC * macs * recipe.batch_size * _steps(recipe, data) >= LEAST_FLOPS


def tuned(recipe: Recipe, config: ResRepConfig | None, data: Data, call: Call) -> Recipe:
    """The recipe with the processes, threads, precision and layout that a step is fastest with here.

    Args:
        recipe: of a run on the CPU.
        config: of its pruner; None without one.
        data: what it trains on.
        call: how the script was called: what was typed stays.
    """
    began = time.perf_counter()
    freedom = freedom_of(recipe, call)
    logger.info("timing steps to choose how to use this CPU (--no-tune leaves that out)")
    sizes = data.num_classes, data.in_channels, data.image_size
    trainee = Trainee(recipe, config, *sizes, recipe.epochs * data.steps_per_epoch(recipe.batch_size))
    try:
        choice = _search(trainee, freedom, _steps(recipe, data))
    except TimingFailed as error:
        logger.warning("not tuned, since no step could be timed: %s", error)
        return recipe
    logger.info(
        "chosen in %.0f s: %s; it goes into run.json, and --no-tune or options of your own change it",
        time.perf_counter() - began,
        choice.setting,
    )
    return replace(recipe, **{name: getattr(choice.setting, name) for name in CHOSEN})


def freedom_of(recipe: Recipe, call: Call) -> Freedom:
    """What may be chosen: all that isn't typed, in what torch says this process may use of the machine."""
    cores = torch.get_num_threads()
    most = max(1, min(cores, recipe.batch_size // LEAST_IMAGES))
    processes = (recipe.processes or 1,) if "processes" in call.typed else _doubled(most)
    threads = {
        count: (recipe.threads,)
        if "threads" in call.typed and recipe.threads
        else tuple(dict.fromkeys((max(1, cores // count), 1)))
        for count in processes
    }

    def choices(name: str, *free: bool) -> tuple[bool, ...]:
        return (getattr(recipe, name),) if name in call.typed else free

    has_bfloat16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    free_precision = has_bfloat16 and not call.is_papers and "amp" not in call.typed
    amp = (False, True) if free_precision else (recipe.amp,)
    layouts = choices("channels_last", recipe.channels_last, not recipe.channels_last)
    return Freedom(processes, threads, amp, layouts, choices("compile", False, True))


def _search(trainee: Trainee, freedom: Freedom, steps: int) -> Choice:
    """Choose, with a group of processes for each number of them; one waits while another works."""
    workers: dict[int, Workers] = {}
    first_steps: dict[MachineSetting, float] = {}

    def measure(setting: MachineSetting) -> StepTime:
        limit = MOST_SECONDS
        if first_steps and not setting.compile:
            limit = max(LEAST_LIMIT, TOO_SLOW * min(first_steps.values()))
        try:
            if setting.processes not in workers:
                workers[setting.processes] = Workers(trainee, setting.processes)
            found = workers[setting.processes].timed(setting, limit)
        except TimingFailed as error:
            if setting.processes in workers:  # it may be in the middle of a step
                workers.pop(setting.processes).close()
            if not first_steps:
                raise
            logger.info("  %s", error)
            return StepTime(math.inf, math.inf)
        if setting not in first_steps:
            logger.info("  %s: %.0f ms a step", setting, 1000 * found.later)
            first_steps[setting] = found.first
        return found

    try:
        return choose(measure, freedom, steps)
    finally:
        _close(workers)


def _close(workers: dict[int, Workers]) -> None:
    for group in workers.values():
        group.close()
    workers.clear()


def _doubled(most: int) -> tuple[int, ...]:
    """1, 2, 4, ..., and the most itself."""
    counts = [1]
    while 2 * counts[-1] < most:
        counts.append(2 * counts[-1])
    return tuple(dict.fromkeys((*counts, most)))


def _steps(recipe: Recipe, data: Data) -> int:
    """Of the whole run."""
    steps = recipe.epochs * data.steps_per_epoch(recipe.batch_size)
    return min(steps, recipe.max_steps or steps)
