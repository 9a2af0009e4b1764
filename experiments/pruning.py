"""A whole pruning run: train with compactors, convert, prove, test. What `rr/exp_resrep.py` does."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.asked_latency import AskedLatency
from experiments.base_weights import base_file, base_weights_of, of_other_data
from experiments.call import Call
from experiments.cut_callback import CutCallback
from experiments.hints import comparison
from experiments.pruned_files import write_pruned
from experiments.resrep_callback import ResRepCallback
from experiments.run import Run, begun
from experiments.run_report import write_report
from experiments.run_times import is_worth_it, layer_milliseconds
from experiments.starts import PruningStart
from experiments.target import missed, missed_time
from experiments.timed_target import TimedTarget, measured, noted, with_flops_target
from rr import InputError, ResRepConfig, ResRepPruner
from rr.copies import copy_of
from rr.refit import check_can_be_cut
from rr.weights import load_network, load_strict, read_hdf5, save_hdf5
from training import Callback, Recipe, RunState, barrier, broadcast_object, evaluate_pair
from training.checkpoint_files import checkpoints, load
from training.json_files import read_json, read_lines, write_json
from training.run_folder import (
    CONVERTED_WEIGHTS,
    FINISH,
    FINISH_WEIGHTS,
    INIT_WEIGHTS,
    METRICS,
    RESULT,
    RUN,
    stored_result,
)

logger = logging.getLogger(__name__)


def prune(
    recipe: Recipe,
    config: ResRepConfig,
    start: PruningStart,
    asked: AskedLatency,
    call: Call | None = None,
) -> bool:
    """Train with compactors, convert and test.

    Args:
        recipe: how to train.
        config: the method's settings.
        start: what pruning starts from.
        asked: a target of time, if there is one.
        call: how the script was called; None: by another program, as one process.

    Returns:
        Whether the target is reached.

    Raises:
        InputError: for what a user can put right.
    """
    with begun(recipe, config, start, asked, call=call, needed=lambda: base_weights_of(recipe, start)) as run:
        recipe, (config, start, asked) = run.recipe, run.settings
        if run.is_new:
            start.check_suits(config)
        config = config_of_run(run, config, start)
        model, doubt = starting_network(run, start)
        start_network = copy_of(model) if recipe.distill else model  # without compactors
        example = torch.zeros(1, run.data.in_channels, run.data.image_size, run.data.image_size)
        config = with_flops_target(run, config, asked, model, example, call.typed if call else frozenset())
        run.settings = config, start, asked
        pruner = ResRepPruner(model, example, config)
        callbacks = callbacks_of(run, pruner, start, asked)
        state = run.state()
        with run.logged(state):
            if doubt is not None:
                logger.warning("%s: unless these are the same images, stop it, and give what belongs together", doubt)
            if state is not RunState.FINISHED:
                logger.info("%s", what_comes(run, config, start))
                run.train(
                    model,
                    state,
                    param_groups=lambda _: pruner.param_groups(**recipe.sgd),
                    write_weights=lambda path, network: save_hdf5(
                        path, pruner.live.remaining.full_state(network.state_dict()), run.attributes
                    ),
                    callbacks=callbacks,
                    teacher=run.teacher(start_network, state),
                    not_averaged=[compactor.pwc.weight for compactor in pruner.compactors.values()],
                )
            elif not (run.folder / CONVERTED_WEIGHTS).exists():
                logger.info("%s holds a finished run: converting and testing it", run.folder)
                load_strict(model, finished_weights(run.folder), str(run.folder / FINISH_WEIGHTS))
            else:
                logger.info("%s holds the finished run of this recipe ('-c fs' starts it again)", run.folder)
            finish(run, pruner, start, asked)
            return reached(run, config)


def finished_weights(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of a trained run's last file.

    Raises:
        InputError: if it is damaged; where there is a checkpoint, with the way back to it.
    """
    try:
        return read_hdf5(folder / FINISH_WEIGHTS).arrays
    except InputError as error:
        if kept := checkpoints(folder):
            raise InputError(
                f"{error}; or delete it: '-c continue' then writes it again from {kept[0].name}"
            ) from error
        raise


def starting_network(run: Run, start: PruningStart) -> tuple[nn.Module, str | None]:
    """The full network, with the base weights in a new run; and what to say where they are of other data.

    Raises:
        InputError: if the weights don't fit.
    """
    model = run.network()
    if not run.is_new:
        return model, None
    base = base_weights_of(run.recipe, start)
    doubt = of_other_data(base, run.recipe)
    try:
        run.load(model, base)
    except InputError as error:
        raise (InputError(f"{error} ({doubt})") if doubt else error) from None
    return model, doubt


def callbacks_of(run: Run, pruner: ResRepPruner, start: PruningStart, asked: AskedLatency) -> list[Callback]:
    """What the method does while the network trains."""
    timed = TimedTarget(pruner, asked, run.first_network) if asked.latency_target is not None else None
    if start.is_cut:
        if run.is_new:
            check_can_be_cut(pruner)
        return [ResRepCallback(pruner), CutCallback(pruner, start.refit_images, timed.search if timed else None)]
    of_time = [timed] if timed is not None else []  # before anything is taken out of the network
    return [*of_time, ResRepCallback(pruner)]


def what_comes(run: Run, config: ResRepConfig, start: PruningStart) -> str:
    """What a run is about to do, in a line for a person who sees one for the first time."""
    recipe, target = run.recipe, config.target
    goals = {"MACs": target.flops, "parameters": target.params}
    kept = [f"{_amount(goal)} of the {noun}" for noun, goal in goals.items() if goal is not None]
    return (
        f"pruning {recipe.arch} {'before' if start.is_cut else 'while'} it trains, {recipe.length} of "
        f"{run.data.steps_per_epoch(recipe.batch_size)} steps, until {' and '.join(kept)} are left; all files go to "
        f"{run.folder}"
    )


def _amount(goal: float) -> str:
    return f"{goal:.1%}" if goal <= 1 else f"{goal:,.0f}"


def config_of_run(run: Run, config: ResRepConfig, start: PruningStart) -> ResRepConfig:
    """The method's settings in the run's own steps."""
    if start.before_mask_epochs is not None:
        steps_per_epoch = run.data.steps_per_epoch(run.recipe.batch_size)
        config = config.with_settings(warmup_steps=round(start.before_mask_epochs * steps_per_epoch))
    return config.for_run(run.total_steps, run.recipe.lr)


def finish(run: Run, pruner: ResRepPruner, start: PruningStart, asked: AskedLatency) -> None:
    """Convert what was trained, where that isn't done yet; test it, report on it, and say where everything is."""
    if not (run.folder / CONVERTED_WEIGHTS).exists() and run.world.is_first:
        write_converted(run, pruner, asked)
    barrier(run.world)
    evaluate_converted(run)
    if run.world.is_first:
        if is_worth_it(run):
            write_result(run.folder, {"times": layer_milliseconds(run)})
        report_on(run)
    say_where(run, start)


def write_converted(run: Run, pruner: ResRepPruner, asked: AskedLatency) -> None:
    """Convert the trained network, prove it equal and write it; the report goes into result.json."""
    # A target that isn't reached is told of last, in the command line's words.
    with without_warnings_of("rr.selection.mask_selection"):
        slim = pruner.convert()
    report, unmasked = pruner.report, pruner.unmasked
    logger.info("converted, layer by layer:\n%s", report)
    if report.kept_for_width:
        logger.info("%d rows that could be dropped stay, to keep the requested widths", report.kept_for_width)
    ratios = {"masked_macs_ratio": unmasked.macs_ratio, "masked_params_ratio": unmasked.params_ratio}
    findings, proof = {"conversion": {**report.as_dict(), **ratios}}, report.as_dict()
    if asked.latency_target is not None:
        timed = measured(run, pruner, asked, slim, report.macs_after / report.macs_before)
        logger.info("the converted network takes %s", timed)
        proof["latency"] = findings["latency"] = {**noted(run, pruner), **timed.as_dict()}
    write_result(run.folder, findings)
    write_pruned(run.folder, slim, run.recipe.arch, run.data, run.everything, proof)  # last: all is done


@contextmanager
def without_warnings_of(name: str) -> Iterator[None]:
    """Within the context, a part of the library logs errors alone."""
    library = logging.getLogger(name)
    level = library.level
    library.setLevel(logging.ERROR)
    try:
        yield
    finally:
        library.setLevel(level)


def evaluate_converted(run: Run) -> None:
    """Load the trained and the converted network from their files, and evaluate both.

    In float32, whatever training used, since bfloat16 rounds differently once BN is folded.
    """
    model, _ = load_network(run.folder / FINISH_WEIGHTS, run.build)
    converted, file = load_network(run.folder / CONVERTED_WEIGHTS, run.build)
    *evaluations, paired = evaluate_pair(
        model.to(run.world.device),
        converted.to(run.world.device),
        run.data,
        run.world,
        batch_size=run.recipe.batch_size,
        channels_last=run.recipe.channels_last,
    )
    found = dict(zip(("before_conversion", "converted"), evaluations, strict=True))
    if run.world.is_first:
        logger.info("channels of the converted model, by layer (deps): %s", file.deps)
        for name, val in found.items():
            words = "converted model" if name == "converted" else "model before its conversion"
            logger.info("%s: top1=%.4f, top5=%.4f, loss=%.6f (float32)", words, val.top1, val.top5, val.loss)
        logger.info(
            "of %d images, %d are right only before the conversion, %d only after it",
            paired.num,
            paired.only_first,
            paired.only_second,
        )
        evaluations = {name: val.to_dict() for name, val in found.items()}
        write_result(run.folder, {**evaluations, "paired": paired.to_dict()})
    barrier(run.world)


def write_result(folder: Path, findings: dict[str, Any]) -> None:
    """Add to result.json, which repeats what run.json says about recipe, seed, versions, commit and hardware."""
    stored = stored_result(folder)
    run = read_json(folder / RUN)
    trained = {} if "last_epoch" in stored else of_training(folder)
    write_json(folder / RESULT, {**stored, **trained, **findings, "run": run})


def of_training(folder: Path) -> dict[str, Any]:
    """The evaluations before the first step and after the last one, and the steps left out, of the last checkpoint."""
    finish = folder / FINISH
    checkpoint = load(finish) if finish.exists() else {}
    evaluations, skipped = checkpoint.get("evaluations"), checkpoint.get("skipped", {}).get("steps", 0)
    if not evaluations:  # of an older version, or without it: they are in metrics.jsonl, too
        evaluated = [record["val"] for record in read_lines(folder / METRICS) if "val" in record]
        evaluations = {"first": evaluated[0], "last": evaluated[-1]}
    return {"base": evaluations["first"], "last_epoch": evaluations["last"], "skipped_steps": skipped}


def report_on(run: Run) -> None:
    """Write the run's report; where a package for it is missing, the log says what brings it, and the run goes on."""
    try:
        logger.info("the report: %s", write_report([run.folder]))
    except InputError as error:
        logger.warning("no report was written: %s", error)


def reached(run: Run, config: ResRepConfig) -> bool:
    """Whether the converted network is as small as it was to be; where it isn't, the last line says so, and why."""
    told = None
    if run.world.is_first:
        result = read_json(run.folder / RESULT)
        # The run's own widths may have asked for other MACs than those it began with.
        if latency := result.get("latency"):
            config = config.with_settings(flops_target=latency["flops_target"])
        told = missed(result["conversion"], config, run.recipe.max_steps) or missed_time(latency)
        if told is not None:
            logger.warning("%s", told)
    return broadcast_object(run.world, told) is None


def say_where(run: Run, start: PruningStart) -> None:
    """Log where the run left its files, and what to do next."""
    converted = run.folder / CONVERTED_WEIGHTS
    base = base_file(run.recipe, start)
    if not base.is_file():
        base = run.folder / INIT_WEIGHTS
    logger.info(
        "the pruned network: %s (and .pth, .safetensors, .pt2); figures: %s; log, curves and recipe beside them\n"
        "compare it with the base: %s",
        converted,
        RESULT,
        comparison(run.recipe, converted, base),
    )
