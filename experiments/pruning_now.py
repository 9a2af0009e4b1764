"""A trained network pruned without training, and tested. What `tools/prune_now.py` does."""

from __future__ import annotations

import argparse
import logging
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from experiments.asked_latency import AskedLatency
from experiments.pruned_files import write_pruned
from experiments.refit_images import refit_images
from experiments.testing import arch_of, data_of, load
from experiments.weight_files import check_is_weights
from rr import InputError, RefitConfig, RefitReport, prune
from rr.weights import WeightFile, read_weights
from training import (
    Evaluation,
    evaluate_pair,
    file_attributes,
    first_rank_first,
    from_options,
    init_world,
    logged_on_terminal,
    surroundings,
    to_plain,
)
from training.json_files import write_json
from training.run_folder import CONVERTED_WEIGHTS, RESULT

logger = logging.getLogger(__name__)


def pruned_now(options: argparse.Namespace) -> str:
    """Prune, test on the validation images, and write the files of a pruning run.

    Args:
        options: those of `tools/prune_now.py`; `arch` is filled in.

    Returns:
        The findings, as text; "" in all processes but the first.

    Raises:
        InputError: for what a user can put right.
    """
    folder = Path(options.output_dir)
    asked = from_options(options, AskedLatency())
    refitting = refitting_of(options)
    with init_world(options.device) as world, logged_on_terminal(world):
        file = full_weights(options, folder)
        options.arch = arch_of(options, file.attributes)
        with first_rank_first(world):
            data = data_of(options, file.attributes)
        logger.info("%s", data.describe())
        model = load(file, options.weights, options, data, world).model.eval()
        began = time.perf_counter()
        batches = list(refit_images(data, options.images, options.batch_size, options.seed, world, options.held_out))
        slim = prune(
            model,
            batches[0][:2],
            batches,
            refitting=refitting,
            latency_target=asked.latency_target,
            timing=asked.timing,
            **targets_of(options),
        )
        seconds = time.perf_counter() - began
        logger.info("testing the full and the pruned network on %d validation images", data.num_val)
        before, after, paired = evaluate_pair(model, slim, data, world, batch_size=256, amp=False, channels_last=True)
        if not world.is_first:
            return ""
        report: RefitReport = slim.refit_report
        settings = settings_of(options, refitting, asked, report)
        tested = {"before": before.to_dict(), "after": after.to_dict(), "paired": paired.to_dict()}
        about = {"settings": settings, "weights": str(options.weights), **file_attributes(options.arch, data)}
        of_run = {**about, **surroundings(world), "seconds": seconds, **tested}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RESULT, of_run | {"conversion": report.conversion.as_dict(), **report.as_dict()})
        write_pruned(folder, slim.cpu(), options.arch, data, settings, proof_of(report))  # last: all is done
    return findings(options, report, before, after, seconds)


def full_weights(options: argparse.Namespace, folder: Path) -> WeightFile:
    """What the file of weights holds, once the options are seen to fit together.

    Raises:
        InputError: for a file that isn't of a full network's weights, no images, or a folder that is taken.
    """
    check_is_weights(options.weights, of_full=True)
    if options.images < 1:
        raise InputError(f"--images is {options.images}: give at least 1")
    if (folder / CONVERTED_WEIGHTS).exists():
        raise InputError(f"{folder} holds a pruned network already: give another --output-dir, or delete it")
    file = read_weights(options.weights)
    if file.kind != "base":
        raise InputError(f"{options.weights} holds a {file.kind} network: give the weights of the full one")
    return file


def proof_of(report: RefitReport) -> dict[str, Any]:
    """What the pruned network's files say of its conversion, and of its time where that was asked for."""
    proof = report.conversion.as_dict()
    return proof if report.latency is None else {**proof, "latency": report.latency.as_dict()}


def findings(
    options: argparse.Namespace, report: RefitReport, before: Evaluation, after: Evaluation, seconds: float
) -> str:
    """What the terminal shows at the end."""
    folder, conversion = Path(options.output_dir), report.conversion
    named = {"-a": options.arch, "--dataset": options.dataset, "--data-dir": options.data_dir}
    again = "".join(f" {option} {value}" for option, value in named.items() if value)
    command = f"python tools/evaluate.py {folder / CONVERTED_WEIGHTS} --against {options.weights}{again}"
    return "\n".join(
        [
            str(conversion),
            "",
            str(report),
            f"top-1 {before.top1:.2f}% before, {after.top1:.2f}% after ({before.num:,} images of the validation data), "
            f"at {conversion.macs_after / conversion.macs_before:.1%} of the MACs, in {seconds:.0f} s without training",
            f"the pruned network: {folder / CONVERTED_WEIGHTS} (and .pth, .safetensors, .pt2)",
            f"all figures: {folder / RESULT}",
            f"compare, with times: {command}",
        ]
    )


def refitting_of(options: argparse.Namespace) -> RefitConfig:
    """The refit's settings, those that are options."""
    given = {field.name: getattr(options, field.name) for field in fields(RefitConfig) if hasattr(options, field.name)}
    return RefitConfig(**given)


def settings_of(
    options: argparse.Namespace, refitting: RefitConfig, asked: AskedLatency, report: RefitReport
) -> dict[str, Any]:
    """All settings, as result.json and the file's card have them."""
    of_time = to_plain(asked) if asked.latency_target is not None else {}
    return {**asdict(refitting), **of_time, **targets_of(options), "images": report.fitted + report.held_out}


def targets_of(options: argparse.Namespace) -> dict[str, Any]:
    """The method's settings, as `rr.prune` takes them; what isn't given is left out where a target of time decides."""
    usual = {"flops_target": 0.5, "width_multiple": 1} if options.latency_target is None else {}
    given = {
        "flops_target": options.flops_target,
        "params_target": options.params_target,
        "layers": options.layers,
        "include": tuple(options.include),
        "exclude": tuple(options.exclude),
        "width_multiple": options.width_multiple,
        "min_width": options.min_width,
        "min_width_share": options.min_width_share,
    }
    return usual | {name: value for name, value in given.items() if value is not None}
