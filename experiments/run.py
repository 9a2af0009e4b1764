"""One way to run: processes, data, network, folder, log and loop, for all scripts and benchmarks that train."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from base_model import pretrained_weights
from data import Data
from experiments.call import Call
from experiments.recipes import of_this_version, typed_as
from experiments.side_processes import on_cores
from experiments.tuning import in_words, is_worth_it, tuned, with_stored_choice
from experiments.weight_files import check_is_weights
from rr import ResRepConfig
from rr.compactors import remove_compactors
from rr.errors import InputError
from rr.weights import load_network, load_start, read_weights, save_hdf5
from training import (
    Callback,
    Recipe,
    RunLog,
    RunState,
    TrainResult,
    World,
    broadcast_object,
    check_fits,
    data_for,
    default_values,
    file_attributes,
    first_rank_first,
    init_world,
    is_new_run,
    locked,
    logged_on_terminal,
    network_builder,
    of_first_rank,
    prepare,
    stored_recipe,
    to_plain,
    train,
)
from training.determinism import use_deterministic_kernels
from training.distributed import choose_device
from training.run_folder import INIT_WEIGHTS, TEACHER_WEIGHTS, is_started_again, what_lacks

DOWNLOAD = "default"  # --weights: what torchvision or timm has to download

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A run: its recipe, its data, and this process's part in it.

    Attributes:
        recipe: as the run's files have it, with its milestones in epochs.
        settings: other dataclasses, which also decide what is computed.
        world: this process among all.
        data: the images.
        conti_or_fs: 'continue', 'fs' (from scratch) or None, as the user chose.
        options: how settings are typed, for messages.
        held: what is let go at the run's end: the folder's lock.
    """

    recipe: Recipe
    settings: tuple[Any, ...]
    world: World
    data: Data
    conti_or_fs: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)
    _log: RunLog | None = field(default=None, init=False)

    @property
    def folder(self) -> Path:
        """What the run writes to."""
        return Path(self.recipe.output_dir)

    @property
    def is_new(self) -> bool:
        """Whether it starts from its first weights."""
        return is_new_run(self.folder, self.conti_or_fs)

    @property
    def everything(self) -> dict[str, Any]:
        """All settings, as plain values."""
        return {name: value for part in (self.recipe, *self.settings) for name, value in to_plain(part).items()}

    @property
    def attributes(self) -> dict[str, str | int]:
        """What its weight files say about the network."""
        return file_attributes(self.recipe.arch, self.data)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole schedule; `max_steps` doesn't shorten it."""
        return self.recipe.epochs * self.data.steps_per_epoch(self.recipe.batch_size)

    @property
    def fewest_at_a_time(self) -> int:
        """The images of the smallest piece of a batch: of one process, which may cut its part into several."""
        steps = self.data.steps_per_epoch(self.recipe.batch_size)
        least, most = self.data.num_train // steps, -(-self.data.num_train // steps)
        processes = 1 if self.recipe.sync_bn else self.world.size
        parts = range(max(least // processes, 1), -(-most // processes) + 1)
        pieces = {part: -(-part // self.recipe.accumulate) for part in parts}  # as `chunk` cuts: the last has the rest
        return min(part % piece or piece for part, piece in pieces.items())

    def build(self) -> nn.Module:
        """The network, freshly initialised."""
        return network_builder(self.recipe.arch, self.data)()

    def network(self) -> nn.Module:
        """The network with the seed's weights, after a check that it takes the data's images.

        Raises:
            InputError: if it doesn't, or the recipe's settings don't suit the device.
        """
        torch.manual_seed(self.recipe.seed)
        model = self.build()
        check_fits(model, self.data, trained_on=self.fewest_at_a_time)
        if self.recipe.cuda_graph and (self.world.device.type != "cuda" or self.world.size > 1):
            raise InputError("cuda_graph works on one CUDA device only: leave --cuda-graph out")
        if self.recipe.sync_bn:
            if self.world.device.type != "cuda":
                raise InputError("sync_bn works on CUDA devices only: leave --sync-bn out")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return model

    def load(self, model: nn.Module, weights: str | Path, *, new_classifier: bool = False) -> list[str]:
        """Load weights to start from.

        Args:
            model: the network, changed in place.
            weights: a file, or `DOWNLOAD`.
            new_classifier: as in `rr.weights.load_start`.

        Returns:
            The names that were left out.

        Raises:
            InputError: if they can't be read or downloaded, or don't fit.
        """
        if str(weights) == DOWNLOAD:
            with first_rank_first(self.world):
                arrays = pretrained_weights(self.recipe.arch)
        else:
            arrays = read_weights(weights).arrays
        return load_start(model, arrays, str(weights), self.data.num_classes, new_classifier)

    def state(self) -> RunState:
        """What is to be done in the folder, which is then ready for it.

        Raises:
            InputError: as `training.prepare` does.
        """
        return of_first_rank(self.world, self._prepared)

    def _prepared(self) -> RunState:
        defaults = default_values(self.recipe, *self.settings)
        self.held.enter_context(locked(self.folder))
        return prepare(self.folder, self.everything, self.conti_or_fs, defaults, of_this_version, self.options)

    def teacher(self, model: nn.Module, state: RunState) -> nn.Module | None:
        """The network that teaches, for a recipe with `distill`; else None. A run that goes on has it in its folder.

        Args:
            model: for a run that starts, a copy of the network before its first step, without compactors: it teaches,
                if the recipe names no other.
            state: what is to be done in the folder.

        Raises:
            InputError: if the recipe's teacher can't be read, or doesn't fit.
        """
        if not self.recipe.distill:
            return None
        if self.recipe.teacher is not None:
            kept, other = self.folder / TEACHER_WEIGHTS, self.build()
            self.load(other, self.recipe.teacher if state is RunState.START else kept)
            if state is RunState.START and self.world.is_first:
                save_hdf5(kept, other.state_dict(), self.attributes)
            return other
        if state is RunState.START:
            return model
        return self.first_network()

    def first_network(self) -> nn.Module:
        """The network as the run began, without compactors, from its folder."""
        first, _ = load_network(self.folder / INIT_WEIGHTS, self.build)
        remove_compactors(first)
        return first

    @contextmanager
    def logged(self, state: RunState) -> Iterator[None]:
        """Log all that happens within the context, in the folder and on the terminal."""
        with RunLog(self.folder, self.world, self.everything, resume=state is not RunState.START) as self._log:
            logger.info("%s", self.data.describe(), extra={"shown": True})
            if used := in_words(self.recipe):
                logger.info("how this machine is used: %s", used)
            yield
        self._log = None

    def train(
        self,
        model: nn.Module,
        state: RunState,
        *,
        param_groups: Callable[[nn.Module], list[dict[str, Any]]],
        write_weights: Callable[[Path, nn.Module], None],
        callbacks: Sequence[Callback] = (),
        teacher: nn.Module | None = None,
        not_averaged: Sequence[nn.Parameter] = (),
    ) -> TrainResult:
        """Train within `logged`, from the start or from where the run was stopped.

        Args:
            model, param_groups, write_weights, callbacks, teacher, not_averaged: as in `training.train`.
            state: what is to be done in the folder.

        Raises:
            InputError: as `training.train` does.
        """
        assert self._log is not None, "train within `with run.logged()`"
        return train(
            self.recipe,
            model,
            self.data,
            self.world,
            self._log,
            param_groups=param_groups,
            write_weights=write_weights,
            callbacks=callbacks,
            resume=state is RunState.RESUME,
            teacher=teacher,
            not_averaged=not_averaged,
        )


def check_can_start(weights: str | None) -> None:
    """Check that what a person named as weights can be a file of them, where it is a file.

    Raises:
        InputError: if it can't.
    """
    if weights not in (None, DOWNLOAD):
        check_is_weights(Path(weights))


@contextmanager
def begun(
    recipe: Recipe, *settings: Any, call: Call | None = None, needed: Callable[[], Any] | None = None
) -> Iterator[Run]:
    """A run with its processes and its data.

    Args:
        recipe: how to train.
        settings: other dataclasses, which also decide what is computed.
        call: how the script was called; None: by another program, as one process.
        needed: raises an InputError if what the run starts from is missing; called before steps are timed for it.

    Raises:
        InputError: for a device, data or a teacher that are missing.
    """
    call = call or Call()
    if is_started_again():
        call = replace(call, conti_or_fs="continue")
    if is_new_run(recipe.output_dir, call.conti_or_fs):
        check_can_start(recipe.teacher)
    lacks = what_lacks(recipe.output_dir) if call.conti_or_fs == "continue" and not is_started_again() else None
    recipe, data = on_this_machine(recipe, settings, call, needed)
    with (
        on_cores(recipe, call),
        init_world(recipe.device, call.local_rank, recipe.process_timeout) as world,
        logged_on_terminal(world),
    ):
        if lacks is not None:
            logger.warning("there is no run to go on with (%s): a new one begins", lacks)
        # The first process's hold: with `-c continue` they come from a file, which others may not see.
        recipe, settings = broadcast_object(world, (recipe.for_run(), settings))
        if recipe.deterministic:
            use_deterministic_kernels(world.device)
        with first_rank_first(world):
            data = data or data_of(recipe)
        logger.info("%s", data.describe())
        with ExitStack() as held:
            yield Run(recipe, settings, world, data, call.conti_or_fs, typed_as(recipe, *settings), held)


def data_of(recipe: Recipe) -> Data:
    """The recipe's data set."""
    return data_for(recipe.arch, recipe.dataset, recipe.data_dir, recipe.image_size, recipe.workers, recipe.hold_out)


def on_this_machine(
    recipe: Recipe, settings: Sequence[Any], call: Call, needed: Callable[[], Any] | None
) -> tuple[Recipe, Data | None]:
    """The recipe with what is chosen for this machine, and the data where that was needed for the choice.

    A run that goes on keeps its own choice; a launcher's processes, GPUs and short runs are left as they are.
    """
    if call.script is None or call.is_launched or not recipe.tune:
        return recipe, None
    if not is_new_run(recipe.output_dir, call.conti_or_fs):
        return with_stored_choice(recipe, stored_recipe(recipe.output_dir), call), None
    if choose_device(recipe.device).type != "cpu":
        return recipe, None
    alone = World(0, 0, 1, torch.device("cpu"))
    with logged_on_terminal(alone):
        data = data_of(recipe)
        if is_worth_it(recipe, data):
            if needed is not None:
                needed()
            config = next((part for part in settings if isinstance(part, ResRepConfig)), None)
            recipe = tuned(recipe, config, data, call)
    return recipe, data
