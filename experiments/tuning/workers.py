"""Processes that hold a run's network as it begins, and time steps of it: the run's own code, with random images."""

from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import distributed, nn
from tqdm import tqdm

from base_model import build_any
from data import Batch
from experiments.tuning.narrowed import narrow_at_random
from experiments.tuning.search import MachineSetting, StepTime
from rr import ResRepConfig, ResRepPruner, param_groups
from rr.copies import copy_of
from training import Recipe, World
from training.allocator import keep_freed_memory
from training.step import forward_backward, memory_format
from training.teaching import Lesson
from training.wrapping import wrapped

NEVER = 10**9
LR = 1e-6  # the weights stay near where they begin
START_SECONDS, LEAVE_SECONDS = 300.0, 1.0
STEPS, MOST_SECONDS = 8, 2.5  # of one setting, after its first step; a step that takes longer is timed once


@dataclass(frozen=True)
class Trainee:
    """What is trained.

    Attributes:
        recipe: how.
        config: of the pruner; None without one.
        num_classes, in_channels, image_size: of the data.
        total_steps: of the run.
    """

    recipe: Recipe
    config: ResRepConfig | None
    num_classes: int
    in_channels: int
    image_size: int
    total_steps: int


class TimingFailed(RuntimeError):
    """A step couldn't be timed; its process says why."""


class Workers:
    """Some processes, and steps that they make together.

    Args:
        trainee: what they train.
        processes: how many.

    Raises:
        TimingFailed: if the first process can't begin.
    """

    def __init__(self, trainee: Trainee, processes: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with thread pools may hang
        self._folder = tempfile.TemporaryDirectory(prefix="timing-")
        store = str(Path(self._folder.name) / "store")  # where the processes find each other
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(processes):
            here, there = context.Pipe()
            process = context.Process(target=_work, args=(rank, processes, store, trainee, there), daemon=True)
            process.start()
            there.close()  # the worker's end alone is left, so that its death ends the pipe
            self._pipes.append(here)
            self._processes.append(process)
        try:
            self._answer("the processes that are to time steps aren't ready after", START_SECONDS)
        except TimingFailed:
            self.close()
            raise

    def timed(self, setting: MachineSetting, most_seconds: float) -> StepTime:
        """Let all make some steps.

        Raises:
            TimingFailed: if one of them fails, or none is done in time.
        """
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # it has ended: its last words are still to be read
                pipe.send(setting)
        answer = self._answer(f"{setting}: too slow, no answer within", most_seconds)
        assert isinstance(answer, StepTime)
        return answer

    def _answer(self, what: str, most_seconds: float) -> StepTime | None:
        """What the first process sends next; other processes have nothing else to say."""
        try:
            if not self._pipes[0].poll(most_seconds):
                raise TimingFailed(f"{what} {most_seconds:.0f} s")
            answer = self._pipes[0].recv()
        except (EOFError, OSError):
            raise TimingFailed("a process that was to time steps has ended by itself") from None
        if isinstance(answer, str):
            raise TimingFailed(answer)
        return answer

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(LEAVE_SECONDS)
            process.kill()  # in the middle of a step that takes too long
            process.join()
        self._folder.cleanup()


def _work(rank: int, size: int, store: str, trainee: Trainee, pipe: Connection) -> None:
    """A worker's life: a setting comes, a time goes back, until the pipe ends."""
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process would leave behind
    warnings.filterwarnings("ignore", message="Grad strides do not match")  # DDP, of 1x1 kernels in channels-last
    torch.set_num_threads(1)  # until a setting says how many: a pool of all cores' threads would stand in the way
    try:
        with _joined(rank, size, store) as world:
            training = _Training(trainee, world)
            pipe.send(None)  # ready
            while True:
                pipe.send(training.timed(pipe.recv()))
    except (EOFError, OSError):  # whoever asked has no more questions, or is gone
        return
    except Exception as error:  # of a user's network, say: the run itself will meet it, and show it
        pipe.send(f"{type(error).__name__}: {error}")


@contextmanager
def _joined(rank: int, size: int, store: str) -> Iterator[World]:
    if size > 1:
        distributed.init_process_group("gloo", store=distributed.FileStore(store, size), rank=rank, world_size=size)
    with World(rank, rank, size, torch.device("cpu")) as world:
        yield world


class _Training:
    """The network with its optimiser, its pruner and its teacher, at its first step."""

    def __init__(self, trainee: Trainee, world: World) -> None:
        self.trainee, self.world = trainee, world
        recipe = trainee.recipe
        keep_freed_memory()  # as the run does
        torch.manual_seed(recipe.seed)
        sizes = {"num_classes": trainee.num_classes, "in_channels": trainee.in_channels}
        self.model = build_any(recipe.arch, **sizes, image_size=trainee.image_size)
        self.teacher = copy_of(self.model).eval() if recipe.distill else None
        self.model.train()
        if trainee.config is None:
            self.optimizer = self._sgd(param_groups(self.model, **{**recipe.sgd, "lr": LR}))
        else:
            example = torch.zeros(1, trainee.in_channels, trainee.image_size, trainee.image_size)
            config = trainee.config.for_run(trainee.total_steps, recipe.lr).with_settings(mask_interval=NEVER)
            pruner = ResRepPruner(self.model, example, config)
            self.optimizer = self._sgd(pruner.param_groups(**{**recipe.sgd, "lr": LR}))
            pruner.attach(self.optimizer)
            if config.narrowing.mode != "no":  # most of the run's steps are those of the narrow network
                once = wrapped(self.model, replace(recipe, compile=False), world)
                narrow_at_random(pruner, lambda: self._seconds(once, self._batch(), recipe, None))

    def _sgd(self, groups: list[dict]) -> torch.optim.SGD:
        return torch.optim.SGD(groups, lr=LR, momentum=self.trainee.recipe.momentum)

    def timed(self, setting: MachineSetting) -> StepTime:
        """Seconds of its first step and of a later one."""
        torch.set_num_threads(setting.threads)
        used = {"amp": setting.amp, "channels_last": setting.channels_last, "compile": setting.compile}
        recipe = replace(self.trainee.recipe, **used)
        for model in filter(None, (self.model, self.teacher)):
            model.to(memory_format=memory_format(recipe))
        network = wrapped(self.model, recipe, self.world)
        teacher = self.teacher
        if teacher is not None and recipe.compile:
            teacher = torch.compile(teacher)
        batch = self._batch()
        first = self._seconds(network, batch, recipe, teacher)
        # All processes must make as many steps, so the first one's clock says how many.
        count = torch.tensor(max(1, min(STEPS, int(MOST_SECONDS / first))) if not recipe.compile else STEPS)
        if self.world.size > 1:
            distributed.broadcast(count, src=0)
        later = [self._seconds(network, batch, recipe, teacher) for _ in range(int(count))]
        # What else is at work on a machine makes steps longer, and none shorter.
        return StepTime(first, sorted(later)[len(later) // 4])

    def _batch(self) -> Batch:
        """This process's part of a batch of random images."""
        recipe, trainee = self.trainee.recipe, self.trainee
        size = len(range(self.world.rank, recipe.batch_size, self.world.size))
        images = torch.randn(size, trainee.in_channels, trainee.image_size, trainee.image_size)
        return Batch(images, torch.randint(trainee.num_classes, (size,)), recipe.batch_size)

    def _seconds(self, network: nn.Module, batch: Batch, recipe: Recipe, teacher: nn.Module | None) -> float:
        began = time.perf_counter()
        forward_backward(network, batch, recipe, self.world, Lesson(teacher))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began
