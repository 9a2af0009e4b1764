"""Testing weight files: what they are, how good, how large, how fast. What `tools/evaluate.py` does."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from base_model import check_name, folder_name, is_file
from data import Data
from experiments.weight_files import check_is_weights
from rr.conversion import fold
from rr.errors import InputError
from rr.graph import ChannelGraph, LiveModel
from rr.weights import WeightFile, load_start, network_in, read_weights
from rr.whole_files import write_text_whole
from training import (
    Evaluation,
    Paired,
    World,
    check_fits,
    compare,
    count_macs,
    data_for,
    evaluate,
    evaluate_pair,
    first_rank_first,
    init_world,
    logged_on_terminal,
    network_builder,
    surroundings,
)
from training.json_files import read_json
from training.run_folder import RUN

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A weight file and the network that it holds.

    Attributes:
        path: the file.
        model: the network, on the device.
        file: what else the file holds.
    """

    path: Path
    model: nn.Module
    file: WeightFile


def examined(options: argparse.Namespace) -> str:
    """Load a weight file, evaluate it, and write the figures where that is wanted.

    Args:
        options: those of `tools/evaluate.py`; `arch` is filled in.

    Returns:
        The findings, as text.

    Raises:
        InputError: for what a user can put right.
    """
    for option, value in (("--batch-size", options.batch_size), ("--image-size", options.image_size)):
        if value is not None and value < 1:
            raise InputError(f"{option} is {value}: give at least 1")
    for path in filter(None, (options.weights, options.against)):
        check_is_weights(path)
    with init_world(options.device) as world, logged_on_terminal(world):
        file = read_weights(options.weights)
        options.arch = arch_of(options, file.attributes)
        with first_rank_first(world):
            data = data_of(options, file.attributes)
        loaded = load(file, options.weights, options, data, world)
        told = "testing it" if options.against is None else "testing both networks"
        logger.info("%s on %d validation images", told, data.num_val)
        how = {"batch_size": options.batch_size, "amp": options.amp, "channels_last": True}
        figures: dict[str, Any] = {"deps": loaded.file.deps}
        if options.against is None:
            val = evaluate(loaded.model, data, world, **how)
            text = described(loaded, val, options, data)
        else:
            base = load(read_weights(options.against), options.against, options, data, world)
            base_val, val, paired = evaluate_pair(base.model, loaded.model, data, world, **how)
            logger.info("timing both networks")
            figures["comparison"], text = compare_files(base, base_val, loaded, val, paired, data)
        figures["val"] = val.to_dict()
        if options.output is not None:
            runs = {"pruning": beside(options.weights, "result.json")}
            if options.against is not None:
                runs["base_training"] = beside(options.against, RUN)
            everything = {"arch": options.arch, "dataset": data.name, **figures, "tested": surroundings(world), **runs}
            write_text_whole(options.output, json.dumps(everything, indent=2) + "\n")
            text += f"\n\nall figures: {options.output}"
    return text


def arch_of(options: argparse.Namespace, attributes: dict[str, Any]) -> str:
    """The network that the options name, else the one that the weight file names, or the run beside it.

    Raises:
        InputError: if neither names one, they differ, or the file names code to run.
    """
    if options.arch is None:
        held = named_in(options.weights, attributes)
        if held is None:
            raise InputError(f"neither {options.weights} nor a {RUN} beside it says which network it holds: give -a")
        if is_file(held):  # a weight file from elsewhere must not make this script run a file
            raise InputError(f"{options.weights} holds what {held} builds: give -a {held} to run that file")
        return held
    check_name(options.arch)
    held = attributes.get("arch")
    if held is not None and folder_name(held) != folder_name(options.arch):  # FILE.py may have been moved
        raise InputError(f"{options.weights} holds a {held}, not a {options.arch}: give -a {held}")
    return options.arch


def named_in(weights: Path, attributes: Mapping[str, Any]) -> str | None:
    """The network that a weight file names, or the run beside it."""
    return attributes.get("arch") or run_beside(weights).get("arch")


def data_of(options: argparse.Namespace, attributes: dict[str, Any]) -> Data:
    """The data set that the options name, else that of the weight file or of its run, else the network's usual one.

    Raises:
        InputError: if there is none, or it is missing.
    """
    recipe = run_beside(options.weights)
    dataset = options.dataset or attributes.get("dataset") or recipe.get("dataset")
    data_dir = options.data_dir
    if data_dir is None and dataset == recipe.get("dataset"):
        data_dir = recipe.get("data_dir")
    image_size = options.image_size or attributes.get("image_size") or recipe.get("image_size")
    return data_for(options.arch, dataset, data_dir, image_size, options.workers)


def load(file: WeightFile, path: Path, options: argparse.Namespace, data: Data, world: World) -> Loaded:
    """Build the network of a file that has been read, and load it strictly.

    Raises:
        InputError: if the file isn't of this network or of the data's classes, or the network doesn't fit the data.
    """
    build = network_builder(options.arch, data)
    classes = file.attributes.get("num_classes", data.num_classes)
    if file.kind == "base":
        model = build()
        load_start(model, file.arrays, str(path), data.num_classes)
    elif classes != data.num_classes:
        raise InputError(f"{path} has {classes} classes, the data has {data.num_classes}: give the data that it is for")
    else:
        model = network_in(file, build, str(path))
    check_fits(model, data)
    return Loaded(path, model.to(world.device), file)


def described(loaded: Loaded, val: Evaluation, options: argparse.Namespace, data: Data) -> str:
    """What one file is and how good, as text."""
    anchor = next(loaded.model.parameters())
    image = torch.zeros(1, data.in_channels, data.image_size, data.image_size, device=anchor.device)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    lines = [f"{loaded.path}: {options.arch}, {loaded.file.description}", data.describe()]
    if loaded.file.deps is not None:
        lines.append(f"channels by layer (deps): {loaded.file.deps}")
    lines.append(f"MACs: {count_macs(loaded.model, image):,}  parameters: {parameters:,}")
    lines.append(f"{data.name}, {val.num:,} images: top1={val.top1:.4f}, top5={val.top5:.4f}, loss={val.loss:.6f}")
    return "\n".join(lines)


def compare_files(
    base: Loaded, base_val: Evaluation, pruned: Loaded, pruned_val: Evaluation, paired: Paired, data: Data
) -> tuple[dict[str, Any], str]:
    """Two networks side by side: the figures for JSON, and as text."""
    shape = (data.in_channels, data.image_size, data.image_size)
    comparison = compare(
        base.model,
        pruned.model,
        shape,
        folded_base=folded(base.model, shape),
        base_val=base_val,
        pruned_val=pruned_val,
        base_file=base.path,
        pruned_file=pruned.path,
    )
    ratio = comparison.pruned.macs / comparison.base.macs
    head = f"{base.path} and {pruned.path} ({ratio:.1%} of the MACs) on {data.name}, {pruned_val.num:,} images:"
    text = f"{head}\n\n{comparison.table()}\n\n{in_words(paired)}\nchannels by layer (deps): {pruned.file.deps}"
    return {**comparison.to_dict(), "macs_ratio": ratio, "paired": paired.to_dict()}, text


def folded(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """The network with its BN folded into the layers before it, and nothing pruned."""
    graph = ChannelGraph(model, torch.zeros(1, *image_shape))
    return fold(LiveModel(model, graph), np.ones(graph.num_units, dtype=bool)).to(next(model.parameters()).dtype)


def in_words(paired: Paired) -> str:
    """What the images on which only one of the two is right say about the difference."""
    counts = f"base alone is right on {paired.only_first:,} images, pruned alone on {paired.only_second:,}"
    where = "within" if abs(paired.points) <= 2 * paired.standard_error else "beyond"
    change = f"top-1 {paired.points:+.2f} points, standard error {paired.standard_error:.2f}"
    return f"{counts}: {change} ({where} two of them)"


def run_beside(weights: Path) -> dict[str, Any]:
    """The settings of the run in whose folder a weight file lies; empty where there is none."""
    return (beside(weights, RUN) or {}).get("recipe", {})


def beside(weights: Path, name: str) -> Any:
    """What the run that wrote a weight file says about itself (recipe, seed, versions, commit, hardware), if anything.

    Args:
        weights: the weight file.
        name: of the JSON file in the same folder.
    """
    path = weights.parent / name
    return read_json(path) if path.is_file() else None
