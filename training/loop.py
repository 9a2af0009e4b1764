"""The training loop, one for base training and for pruning, which joins in through callbacks."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data import Batch, Data
from rr.errors import InputError
from training import run_folder
from training.agreement import Agreement
from training.allocator import keep_freed_memory
from training.callback import Callback, TrainState
from training.checkpoint import load_run, save_run
from training.checkpoint_files import LATEST
from training.cutout import with_cutout
from training.distributed import World, barrier
from training.evaluation import Evaluation
from training.log import RunLog
from training.meter import Meter
from training.observe import callback_record, epoch_record, look, validate
from training.recipe import Recipe
from training.recorded import RecordedSteps
from training.recording import CudaGraphs
from training.schedule import lr_factor
from training.skipping import CarefulSteps
from training.step import memory_format, take_step
from training.stopping import stop_requests
from training.weight_average import WeightAverage


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        val: the last evaluation.
        train: means over the last epoch's training; None if nothing was left to train.
        epochs: how many are done.
        steps: how many are done.
        seconds: what this part of the run took.
    """

    val: Evaluation
    train: Evaluation | None
    epochs: int
    steps: int
    seconds: float


def train(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    world: World,
    log: RunLog,
    *,
    param_groups: Callable[[nn.Module], list[dict[str, Any]]],
    write_weights: Callable[[Path, nn.Module], None],
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    teacher: nn.Module | None = None,
    not_averaged: Sequence[nn.Parameter] = (),
) -> TrainResult:
    """Train `model` in place as the recipe says; writes init.hdf5, latest.pth, epoch-{e}.hdf5, finish.pth, finish.hdf5.

    Args:
        recipe: what is to be done.
        model: the network, trained in place on the world's device.
        data: the data set.
        world: the processes.
        log: the run's log, and its folder.
        param_groups: model -> the groups for torch.optim.SGD.
        write_weights: (path, model) -> None; writes a weight file.
        callbacks: what else is to happen.
        resume: go on from latest.pth in the log's folder.
        teacher: another network for the same classes, for a recipe with `distill`. It is moved to the model's device
            and left in eval mode; no checkpoint holds it, so it must be given again when a run is resumed.
        not_averaged: parameters that keep their last values where a recipe averages weights: a compactor's, whose rows
            are zero by then.

    Raises:
        InputError: if there is a teacher without `distill`, or `distill` without a teacher.
        NonFiniteLoss: at the next look (every log_interval steps) after a loss that isn't finite; where the recipe says
            skip, after some steps in a row that were left out.
        WriteError: if a file can't be written; the last checkpoint stays.
        KeyboardInterrupt, Terminated: once a checkpoint is written, where a signal asked for that.
    """
    if (teacher is None) != (recipe.distill == 0):
        raise InputError(f"distill is {recipe.distill:g}: give a teacher where it's over 0, and only there")
    began = time.perf_counter()
    state = _start(recipe, model, data, world, log, param_groups, write_weights, teacher)
    if recipe.average_last:
        callbacks = [*callbacks, WeightAverage(recipe.average_last, not_averaged)]
    meter = Meter(world)
    for callback in callbacks:
        callback.on_start(state)
    val = trained = None
    if resume:
        load_run(state, meter, callbacks)
        log.rewind(state.epoch)
        state.rewrap()
    else:
        state.rewrap()
        val = _before_first_step(state, callbacks)

    step = partial(take_step, state)
    if recipe.cuda_graph:
        step = RecordedSteps(state, callbacks, CudaGraphs(world.device))
    elif recipe.non_finite_loss == "skip":
        step = CarefulSteps(state)
    requests = stop_requests()
    agreement = Agreement(world, requests)
    with log.progress_bar(state.total_steps, state.step) as bar, requests.held_back():
        while state.step < state.total_steps:
            epoch_began = time.perf_counter()
            for _ in _steps_of_epoch(state, meter, callbacks, step, agreement):
                bar.update()
                if state.step % recipe.log_interval == 0:
                    look(state, meter, callbacks, bar)
                is_to_stop = agreement.is_to_stop()
                if (is_to_stop or _is_due(recipe.checkpoint_interval, state.step)) and not _epoch_is_over(state):
                    save_run(LATEST, state, meter, callbacks)
                    if is_to_stop:
                        requests.leave()
            look(state, meter, callbacks, bar)
            trained, val = _after_epoch(state, meter, callbacks, epoch_began)
            save_run(LATEST, state, meter, callbacks)
            if agreement.is_to_stop() and state.step < state.total_steps:
                requests.leave()
        agreement.ask()  # a signal in the last step may have reached one process alone
        if agreement.is_to_stop():
            requests.leave()

    val = val or validate(state)  # resumed after the last epoch
    save_run(run_folder.FINISH, state, meter, callbacks)
    state.save_weights(run_folder.FINISH_WEIGHTS)  # last of all: this file says that the run is complete
    barrier(world)
    return TrainResult(val, trained, state.epoch, state.step, time.perf_counter() - began)


def _before_first_step(state: TrainState, callbacks: Sequence[Callback]) -> Evaluation:
    """Evaluate and write what a new run starts from."""
    state.save_weights(run_folder.INIT_WEIGHTS)
    val = validate(state)
    state.log.epoch({"epoch": 0, "step": 0, "val": val.to_dict(), **callback_record(callbacks)})
    for callback in callbacks:
        callback.before_first_step(state)
    return val


def _steps_of_epoch(
    state: TrainState,
    meter: Meter,
    callbacks: Sequence[Callback],
    step: Callable[[Batch], Tensor],
    agreement: Agreement,
) -> Iterator[None]:
    """Train to the end of the epoch, or of the run; yields after each step, once all have counted it."""
    state.model.train()
    meter.start_clock()
    for batch in _rest_of_epoch(state):
        agreement.ask()
        _seed(state.world.device, _step_seed(state.recipe.seed, state.step, state.world.rank))
        sums = step(with_cutout(batch, state.recipe.cutout))
        state.scheduler.step()
        state.step += 1
        meter.add(sums, state.step)
        for callback in callbacks:
            callback.after_step(state)
        yield


def _after_epoch(
    state: TrainState, meter: Meter, callbacks: Sequence[Callback], began: float
) -> tuple[Evaluation | None, Evaluation | None]:
    """Count the epoch, evaluate where that is due, and write what is known of it.

    Args:
        began: when the epoch did, by `time.perf_counter`.

    Returns:
        Means over the epoch's training, unless all of it was left out, and the evaluation, if any.
    """
    trained = meter.epoch()
    meter.new_epoch()
    state.epoch += 1
    seconds = time.perf_counter() - began
    val = validate(state) if _evaluation_is_due(state) else None
    for callback in callbacks:
        callback.after_epoch(state)
    state.log.epoch(epoch_record(state, trained, val, callbacks, seconds))
    if _is_due(state.recipe.save_interval, state.epoch):
        state.save_weights(f"epoch-{state.epoch}.hdf5")
    return trained, val


def _start(
    recipe: Recipe,
    model: nn.Module,
    data: Data,
    world: World,
    log: RunLog,
    param_groups: Callable[[nn.Module], list[dict[str, Any]]],
    write_weights: Callable[[Path, nn.Module], None],
    teacher: nn.Module | None,
) -> TrainState:
    if world.device.type == "cuda" and not recipe.deterministic:
        torch.backends.cudnn.benchmark = True
    if world.device.type == "cpu":
        keep_freed_memory()
    model.to(world.device, memory_format=memory_format(recipe))
    if teacher is not None:
        teacher.eval().to(world.device, memory_format=memory_format(recipe))
    groups = param_groups(model)
    optimizer = torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    steps_per_epoch = data.steps_per_epoch(recipe.batch_size)
    factors = [lr_factor(recipe, steps_per_epoch, group["lr"]) for group in optimizer.param_groups]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
    full_length = recipe.epochs * steps_per_epoch
    total_steps = min(full_length, recipe.max_steps or full_length)
    return TrainState(
        recipe, world, log, data, model, optimizer, scheduler, write_weights, steps_per_epoch, total_steps, teacher
    )


def _rest_of_epoch(state: TrainState) -> Iterator[Batch]:
    """The batches from where the run stands to the end of the epoch, or of the run."""
    start = state.step - state.epoch * state.steps_per_epoch
    left = min(state.steps_per_epoch - start, state.total_steps - state.step)
    for _, batch in zip(range(left), state.train_batches(start), strict=False):
        yield batch


def _seed(device: torch.device, seed: int) -> None:
    """As `torch.manual_seed`, which takes a millisecond: it formats the call stack for each kind of GPU not there."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _step_seed(seed: int, step: int, rank: int) -> int:
    """The seed of all that is random in the model (dropout) at a step, on a process: a resumed run has the same."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _is_due(interval: int, count: int) -> bool:
    return interval > 0 and count % interval == 0


def _epoch_is_over(state: TrainState) -> bool:
    return state.step % state.steps_per_epoch == 0 or state.step == state.total_steps


def _evaluation_is_due(state: TrainState) -> bool:
    recipe = state.recipe
    is_last = state.epoch > recipe.epochs - recipe.val_last or state.step == state.total_steps
    return is_last or _is_due(recipe.val_interval, state.epoch)
