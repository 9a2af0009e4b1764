"""Prune a trained network with ResRep, fold it into a narrow plain one, and test that.

    python rr/exp_resrep.py -a src56                                  # CIFAR-10, 480 epochs, 47.1% of the MACs kept
    torchrun --nproc_per_node=8 rr/exp_resrep.py -a sres50            # ImageNet, 180 epochs, 45.5% of the MACs kept
    python rr/exp_resrep.py -a src20 --dataset folder --data-dir DIR   # your own images; 12 epochs
    python rr/exp_resrep.py -a src56 --fast --epochs 25                # another length: all of its schedule goes along
    python rr/exp_resrep.py -a torchvision/mobilenet_v2 --dataset imagenet --weights default   # from anywhere
    python rr/exp_resrep.py -a my_models.py:build --dataset folder --data-dir DIR --weights my_checkpoint.pth
    python rr/exp_resrep.py -a src20 --distill 0.5 --temperature 4    # the unpruned network as teacher

The first two are the paper's, as it has them. For every other network the settings are those of a short run
(`rr.fast_config`), as with --fast; --no-fast gives the paper's rule for it. Single options change either.

It starts from src56_train/finish.hdf5 (`train_base_model.py -a src56`) or torchvision_res50.hdf5
(`transform_torchvision.py`), or from --weights: a file (.pth, .pt, .safetensors, .hdf5), or `default` for what
torchvision or timm has to download. The paper has 93.71% before and after for ResNet-56 (-52.9% MACs, section 4.1),
76.15% before and after for ResNet-50 (-54.5% MACs, section 4.2; 53 hours on 8 GPUs).

Writes to resrep_models/{arch}_train/: log.txt, metrics.jsonl, run.json, tensorboard/, init.hdf5,
before_first_mask.hdf5, epoch-{e}.hdf5, latest.pth, finish.hdf5, finish_converted.hdf5 (and .pth), result.json. A run
that was stopped goes on with `-c continue`; a folder with finish.hdf5 is converted and tested, one with
finish_converted.hdf5 is tested.
"""

import argparse
import copy
import json
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from base_model import model_names, pretrained_weights
from data import Data
from experiments.recipes import PAPER_NETWORKS, of_this_version, resrep_config
from rr import ConversionReport, ResRepConfig, ResRepPruner
from rr.compactors import remove_compactors
from rr.weights import (
    CONVERTED_WEIGHTS,
    load_network,
    load_start,
    load_strict,
    read_hdf5,
    read_weights,
    save_converted,
    save_hdf5,
)
from training import (
    Callback,
    Recipe,
    RunLog,
    RunState,
    TrainState,
    World,
    add_continue,
    add_local_rank,
    add_options,
    barrier,
    base_recipe,
    broadcast_object,
    check_fits,
    data_for,
    default_values,
    evaluate_pair,
    exit_on_bad_input,
    fast_recipe,
    file_attributes,
    first_rank_first,
    from_options,
    init_world,
    is_new_run,
    network_builder,
    prepare,
    read_ahead,
    read_network,
    resrep_recipe,
    to_plain,
    train,
)
from training.log import write_whole
from training.run_folder import FINISH_WEIGHTS, INIT_WEIGHTS, METRICS, RUN

RESULT, BEFORE_FIRST_MASK = "result.json", "before_first_mask.hdf5"
REMAIN_INTERVAL = 1000  # steps between log lines on what a conversion would leave

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """Where the run begins."""

    base_weights: str | None = field(
        default=None,
        metadata={
            "flags": ("--weights",),
            "help": "weights of the trained network: a file, or default for what torchvision or timm has to download; "
            "none: the file that its own script writes",
        },
    )
    before_mask_epochs: float | None = field(
        default=5.0,
        metadata={"help": "epochs before the first mask update; none: a share of the run, as fast_config has it"},
    )

    def __post_init__(self) -> None:
        if self.before_mask_epochs is not None and not 0 <= self.before_mask_epochs < math.inf:
            raise ValueError(f"before_mask_epochs is {self.before_mask_epochs}: must be 0 or more")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    with exit_on_bad_input():
        recipe, config, start, options = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        run(recipe, config, start, options.conti_or_fs, options.local_rank)


def parse_arguments(arguments: Sequence[str]) -> tuple[Recipe, ResRepConfig, Start, argparse.Namespace]:
    """The network's own recipes with what the command line changes in them. Exits with 2 for what it doesn't know."""
    arch, dataset = read_network(arguments)
    fast = read_ahead(arguments, "--fast", action=argparse.BooleanOptionalAction)
    fast = arch not in PAPER_NETWORKS if fast is None else fast
    if fast:
        epochs = read_ahead(arguments, "--epochs", type=int)
        defaults = fast_recipe(arch, dataset, epochs), resrep_config(arch, fast=True), Start(before_mask_epochs=None)
    else:
        defaults = resrep_recipe(arch, dataset), resrep_config(arch), Start()
    parser = argparse.ArgumentParser(
        usage="%(prog)s -a NAME [options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_continue(parser)
    add_local_rank(parser)
    parser.add_argument(
        "--fast",
        action=argparse.BooleanOptionalAction,
        default=fast,
        help="the other options' defaults: settings for a short run, or the paper's; not given: the paper's for "
        + " and ".join(PAPER_NETWORKS),
    )
    add_options(parser, *defaults)
    options = parser.parse_args(arguments)
    recipe, config, start = (from_options(options, default) for default in defaults)
    return recipe, config, start, options


def run(
    recipe: Recipe,
    config: ResRepConfig,
    start: Start,
    conti_or_fs: str | None = None,
    local_rank: int | None = None,
) -> None:
    """Train with compactors, convert and test; raises ValueError for what a person can put right."""
    with init_world(recipe.device, local_rank) as world:
        with first_rank_first(world):
            data = data_for(recipe.arch, recipe.dataset, recipe.data_dir, recipe.image_size, recipe.workers)
            downloads = start.base_weights == "default" and is_new_run(recipe.output_dir, conti_or_fs)
            downloaded = pretrained_weights(recipe.arch) if downloads else None
        steps_per_epoch = data.steps_per_epoch(recipe.batch_size)
        if start.before_mask_epochs is not None:
            config = config.with_settings(warmup_steps=round(start.before_mask_epochs * steps_per_epoch))
        config = config.for_run(recipe.epochs * steps_per_epoch, recipe.lr)
        build = network_builder(recipe.arch, data)
        everything = {**to_plain(recipe), **to_plain(config), **to_plain(start)}
        folder = Path(recipe.output_dir)

        torch.manual_seed(recipe.seed)
        model = build()
        check_fits(model, data, for_training=True)
        if is_new_run(folder, conti_or_fs):
            base_weights = "default" if downloaded else base_weights_of(recipe, start)
            load_start(model, downloaded or read_weights(base_weights).arrays, str(base_weights), data.num_classes)
        teacher = copy.deepcopy(model) if recipe.distill else None
        example = torch.zeros(1, data.in_channels, data.image_size, data.image_size)
        pruner = ResRepPruner(model, example, config)

        todo = (
            prepare(folder, everything, conti_or_fs, default_values(recipe, config, start), of_this_version)
            if world.is_first
            else None
        )
        todo = broadcast_object(world, todo)
        if teacher is not None and todo is RunState.RESUME:
            teacher = first_network(folder, build)
        with RunLog(folder, world, everything, resume=todo is not RunState.START) as log:
            if todo is not RunState.FINISHED:
                train(
                    recipe,
                    model,
                    data,
                    world,
                    log,
                    param_groups=lambda _: pruner.param_groups(**recipe.sgd),
                    write_weights=lambda path, network: save_hdf5(
                        path, pruner.live.remaining.full_state(network.state_dict()), file_attributes(recipe, data)
                    ),
                    callbacks=[ResRepCallback(pruner)],
                    resume=todo is RunState.RESUME,
                    teacher=teacher,
                )
            elif not (folder / CONVERTED_WEIGHTS).exists():
                logger.info("%s holds a finished run: converting and testing it", folder)
                load_strict(model, read_hdf5(folder / FINISH_WEIGHTS).arrays, str(folder / FINISH_WEIGHTS))
            if not (folder / CONVERTED_WEIGHTS).exists() and world.is_first:
                write_converted(pruner, folder, file_attributes(recipe, data))
            barrier(world)
            test_converted(recipe, data, world, folder, build)


def base_weights_of(recipe: Recipe, start: Start) -> Path:
    """The file to start from; ValueError, with the command that makes it, where it's missing."""
    depth = recipe.arch.removeprefix("sres")
    if start.base_weights is not None:
        path, fix = Path(start.base_weights), "check --weights"
    elif recipe.arch in model_names() and depth != recipe.arch:
        path = Path(f"torchvision_res{depth}.hdf5")
        fix = f"make them with `python transform_torchvision.py -a {recipe.arch}`, or give a file with --weights"
    else:
        path = Path(base_recipe(recipe.arch, recipe.dataset).output_dir) / FINISH_WEIGHTS
        fix = f"make them with `python train_base_model.py -a {recipe.arch}`, or give a file with --weights"
        if recipe.arch not in model_names():
            fix += ", or 'default' for what torchvision or timm has to download"
    if not path.is_file():
        raise ValueError(f"the base weights {path} are missing: {fix}")
    return path


def first_network(folder: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The network with the base weights: what a run wrote before its first step, without the compactors, still the
    identity, that are in that file."""
    model, _ = load_network(folder / INIT_WEIGHTS, build)
    remove_compactors(model)
    return model


class ResRepCallback(Callback):
    """The method in the training loop: the pruner's hooks, its log lines, curves and files."""

    def __init__(self, pruner: ResRepPruner) -> None:
        self.pruner = pruner

    def on_start(self, state: TrainState) -> None:
        self.pruner.attach(state.optimizer)
        state.settled = lambda: self.pruner.settled
        if self.pruner.config.selection.warmup_steps == 0:
            state.save_weights(BEFORE_FIRST_MASK)

    def after_step(self, state: TrainState) -> None:
        pruner = self.pruner
        if state.step == pruner.config.selection.warmup_steps:
            state.save_weights(BEFORE_FIRST_MASK)
        if pruner.masks_are_due():
            logger.info("iter %d, unmasked deps %s", state.step, pruner.unmasked.widths)
        if pruner.narrow_is_due and (gone := pruner.narrow()):
            state.rewrap()
            logger.info("iter %d, %d dead channels taken out of the network", state.step, gone)
            if pruner.retired:
                logger.info(
                    "iter %d, pruning is over: the compactors are gone, the narrow network trains on", state.step
                )
        if state.step % REMAIN_INTERVAL == 0:
            remaining = pruner.remaining
            logger.info(
                "iter %d, thres %g, remain deps %s, FLOPs %.6f, params %.6f",
                state.step,
                pruner.config.decay.threshold,
                remaining.widths,
                remaining.macs_ratio,
                remaining.params_ratio,
            )

    def scalars(self) -> dict[str, float]:
        pruner = self.pruner
        unmasked, remaining, norms = pruner.unmasked, pruner.remaining, pruner.candidate_norms()
        widths = zip(pruner.graph.width_names(), unmasked.widths, strict=True)
        pruned_layers = {site.layer for site in pruner.sites}
        return {
            "MACs/masked": unmasked.macs_ratio,
            "MACs/remaining": remaining.macs_ratio,
            "parameters/masked": unmasked.params_ratio,
            "parameters/remaining": remaining.params_ratio,
            "norm/min": float(norms.min()),
            "norm/mean": float(norms.mean()),
            "norm/max": float(norms.max()),
            **{f"width/{name}": float(width) for name, width in widths if name in pruned_layers},
        }

    def progress(self) -> dict[str, str]:
        return {"MACs": f"{self.pruner.unmasked.macs_ratio:.3f}", "left": f"{self.pruner.remaining.macs_ratio:.3f}"}

    def state_dict(self) -> dict[str, Any]:
        return self.pruner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pruner.load_state_dict(state)


def write_converted(pruner: ResRepPruner, folder: Path, attributes: dict[str, str | int]) -> None:
    """Fold, prove, write; the conversion's report goes into result.json."""
    slim = pruner.convert()
    report: ConversionReport = pruner.report
    unmasked = pruner.unmasked
    if report.macs_ratio > unmasked.macs_ratio:
        logger.warning(
            "%.4f of the MACs remain, not the %.4f that the masks ask for: masked rows whose norm is still over %g "
            "stay in the converted model, so that nothing is lost. Train longer, or %s.",
            report.macs_ratio,
            unmasked.macs_ratio,
            pruner.config.decay.threshold,
            "raise --penalty" if pruner.config.decay.masked_penalty is None else "lower --death-steps",
        )
    logger.info(
        "converted: %.4f of the MACs, %.4f of the parameters, %d rows dropped; "
        "largest difference of the outputs: float64 %.1e, float32 %.1e",
        report.macs_ratio,
        report.parameters_ratio,
        report.dropped,
        report.float64_difference,
        report.float32_difference,
    )
    if report.kept_for_width:
        logger.info("%d rows that could be dropped stay, for the widths that were asked for", report.kept_for_width)
    ratios = {"masked_macs_ratio": unmasked.macs_ratio, "masked_params_ratio": unmasked.params_ratio}
    write_result(folder, {"conversion": {**report.as_dict(), **ratios}})
    save_converted(folder / CONVERTED_WEIGHTS, slim, attributes)  # last: the file says that all is done


def test_converted(recipe: Recipe, data: Data, world: World, folder: Path, build: Callable[[], nn.Module]) -> None:
    """Load what was trained and what it was converted to afresh, and evaluate both.

    In float32 whatever training was in, since bfloat16 rounds differently once BN is folded.
    """
    model, _ = load_network(folder / FINISH_WEIGHTS, build)
    converted, file = load_network(folder / CONVERTED_WEIGHTS, build)
    *evaluations, paired = evaluate_pair(
        model.to(world.device),
        converted.to(world.device),
        data,
        world,
        batch_size=recipe.batch_size,
        channels_last=recipe.channels_last,
    )
    found = dict(zip(("before_conversion", "converted"), evaluations, strict=True))
    if world.is_first:
        logger.info("deps of the converted model: %s", file.deps)
        for name, val in found.items():
            words = "converted model" if name == "converted" else "model before its conversion"
            logger.info("%s: top1=%.4f, top5=%.4f, loss=%.6f (float32)", words, val.top1, val.top5, val.loss)
        logger.info(
            "of %d images, %d are right only before the conversion, %d only after it",
            paired.num,
            paired.only_first,
            paired.only_second,
        )
        write_result(folder, {name: val.to_dict() for name, val in found.items()})
    barrier(world)


def write_result(folder: Path, findings: dict[str, Any]) -> None:
    """Add to result.json, which repeats what run.json says about recipe, seed, versions, commit and hardware."""
    path = folder / RESULT
    stored = json.loads(path.read_text()) if path.exists() else {}
    run = json.loads((folder / RUN).read_text())
    epochs = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    evaluated = [record for record in epochs if "val" in record]
    accuracies = {"base": evaluated[0]["val"], "last_epoch": evaluated[-1]["val"]}
    write_whole(path, json.dumps({**stored, **accuracies, **findings, "run": run}, indent=2) + "\n")


if __name__ == "__main__":
    main()
