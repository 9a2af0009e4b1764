"""Training the network that is pruned afterwards: what `train_base_model.py` does."""

from __future__ import annotations

import logging
from functools import partial

from experiments.call import Call
from experiments.hints import command
from experiments.recipes import base_folder
from experiments.run import Run, begun, check_can_start
from experiments.starts import BaseStart
from rr import InputError, param_groups
from rr.copies import copy_of
from rr.weights import save_hdf5
from training import Recipe, RunState
from training.run_folder import FINISH_WEIGHTS

logger = logging.getLogger(__name__)


def train_base(recipe: Recipe, start: BaseStart, call: Call | None = None) -> None:
    """Train a base network.

    Args:
        recipe: what is to be done.
        start: what the training starts from.
        call: how the script was called; None: by another program, as one process.

    Raises:
        InputError: for what a user can put right.
    """
    if recipe.distill and start.weights is None and recipe.teacher is None:
        raise InputError(
            "distill needs a teacher, the trained weights that the run starts from: give --weights too, or --teacher"
        )
    with begun(recipe, start, call=call, needed=lambda: check_can_start(start.weights)) as run:
        recipe, (start,) = run.recipe, run.settings
        model, left_out = run.network(), []
        if start.weights is not None and run.is_new:
            left_out = run.load(model, start.weights, new_classifier=start.new_classifier)
        if recipe.distill and recipe.teacher is None and left_out:
            raise InputError(
                f"distill needs a teacher that knows the data's classes, and {start.weights} comes without its "
                "classifier: train without --distill first, and start from what that writes"
            )
        state = run.state()
        if state is RunState.FINISHED:
            logger.info("%s holds the finished run of this recipe ('-c fs' starts it again)", run.folder)
            say_where(run)
            return
        with run.logged(state):
            if left_out:
                logger.info("starting from %s without its classifier: %s", start.weights, ", ".join(left_out))
            logger.info(
                "training %s, %s of %d steps; all files go to %s",
                *(recipe.arch, recipe.length, run.data.steps_per_epoch(recipe.batch_size), run.folder),
            )
            run.train(
                model,
                state,
                param_groups=partial(param_groups, **recipe.sgd),
                write_weights=lambda path, network: save_hdf5(path, network.state_dict(), run.attributes),
                teacher=run.teacher(copy_of(model), state),
            )
            say_where(run)


def say_where(run: Run) -> None:
    """Log where the run left its files, and what to do next."""
    weights, recipe = run.folder / FINISH_WEIGHTS, run.recipe
    more = () if recipe.output_dir == base_folder(recipe.arch) else ("--weights", weights)
    logger.info(
        "the trained network: %s; log, curves and recipe beside it\nprune it: %s",
        weights,
        command("rr/exp_resrep.py", recipe, *more),
    )
