"""Test any weight file that this project writes: base, in training (with its compactors) or converted.

    python tools/evaluate.py resrep_models/src56_train/finish_converted.hdf5
    python tools/evaluate.py -a src20 PRUNED.hdf5 --against BASE.hdf5 --output comparison.json
    python tools/evaluate.py -a src20 src20_train/finish.hdf5 --dataset folder --data-dir DIR
    python tools/evaluate.py -a torchvision/resnet18 my_checkpoint.pth --dataset imagenet

The network is the one that the file names, or -a; FILE.py:FUNCTION always needs -a, since no weight file may decide
what code runs here. A file of somebody else (.pth, .pt, .safetensors) needs -a, and --dataset but for our own networks.

Prints what the file is, its accuracy on the validation data, its MACs and parameters; with --against the same of both
files side by side, with milliseconds per image and bytes on disk, and with how sure the difference between their
accuracies is: validation images are a sample. --output writes the figures as JSON, together with what the runs beside
the files say of their recipes, and what this machine is. Seconds on CIFAR, a pass over the validation images on
ImageNet.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from base_model import WHERE_ELSE, check_name, folder_name, is_file, model_names
from data import Data, dataset_names
from rr.weights import WeightFile, load_network, read_weights
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
    exit_on_bad_input,
    init_world,
    network_builder,
    surroundings,
)

KINDS = {"base": "base network", "training": "network in training, with compactors", "converted": "converted network"}


@dataclass(frozen=True)
class Loaded:
    """A weight file and the network that it holds, on the device."""

    path: Path
    model: nn.Module
    file: WeightFile


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with exit_on_bad_input():
        run(parse_arguments(arguments))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Exits with 2 for what it doesn't know."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = ", ".join(dataset_names())
    networks = ", ".join(model_names())
    parser.add_argument("-a", "--arch", help=f"network (default: what the file names): {networks}, {WHERE_ELSE}")
    parser.add_argument("weights", type=Path, help="a file of weights: .hdf5, .pth, .pt, .safetensors")
    parser.add_argument("--against", type=Path, help="another weight file, to compare with: the base network's")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--dataset", help=f"data set (default: what the file was trained on): {names}")
    parser.add_argument("--data-dir", help="folder of the data (default: the data set's usual one)")
    parser.add_argument("--image-size", type=int, help="height and width of the images (default: as in training)")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, help="loader processes or threads (default: the data set's choice)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--amp", action=argparse.BooleanOptionalAction, default=False, help="bfloat16 autocast")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Load, evaluate, print, write; raises ValueError for what a person can put right."""
    if options.batch_size < 1:
        raise ValueError(f"--batch-size is {options.batch_size}: give at least 1")
    attributes = read_weights(options.weights).attributes
    options.arch = arch_of(options, attributes)
    data = data_of(options, attributes)
    with init_world(options.device) as world:
        loaded = load(options.weights, options, data, world)
        how = {"batch_size": options.batch_size, "amp": options.amp, "channels_last": True}
        figures: dict[str, Any] = {"deps": loaded.file.deps}
        if options.against is None:
            val = evaluate(loaded.model, data, world, **how)
            describe(loaded, val, options, data)
        else:
            base = load(options.against, options, data, world)
            base_val, val, paired = evaluate_pair(base.model, loaded.model, data, world, **how)
            figures["comparison"] = compare_files(base, base_val, loaded, val, paired, data)
        figures["val"] = val.to_dict()
        if options.output is not None:
            runs = {"pruning": beside(options.weights, "result.json")}
            if options.against is not None:
                runs["base_training"] = beside(options.against, "run.json")
            everything = {"arch": options.arch, "dataset": data.name, **figures, "tested": surroundings(world), **runs}
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(json.dumps(everything, indent=2) + "\n")


def arch_of(options: argparse.Namespace, attributes: dict[str, Any]) -> str:
    """The network that the options name, else the one that the weight file names."""
    held = attributes.get("arch")
    if options.arch is None:
        if held is None:
            raise ValueError(f"{options.weights} doesn't say which network it holds: give -a")
        if is_file(held):  # a weight file from elsewhere must not make this script run a file
            raise ValueError(f"{options.weights} holds what {held} builds: give -a {held} to run that file")
        return held
    check_name(options.arch)
    if held is not None and folder_name(held) != folder_name(options.arch):  # FILE.py may have been moved
        raise ValueError(f"{options.weights} holds a {held}, not a {options.arch}: give -a {held}")
    return options.arch


def data_of(options: argparse.Namespace, attributes: dict[str, Any]) -> Data:
    """The data set that the options name, else the one that the weight file names, else the network's usual one."""
    dataset = options.dataset or attributes.get("dataset")
    image_size = options.image_size or attributes.get("image_size")
    return data_for(options.arch, dataset, options.data_dir, image_size, options.workers)


def load(path: Path, options: argparse.Namespace, data: Data, world: World) -> Loaded:
    """Build the network that the file is of and load it strictly."""
    model, file = load_network(path, network_builder(options.arch, data))
    check_fits(model, data)
    return Loaded(path, model.to(world.device), file)


def describe(loaded: Loaded, val: Evaluation, options: argparse.Namespace, data: Data) -> None:
    """Print what one file is and how good."""
    anchor = next(loaded.model.parameters())
    image = torch.zeros(1, data.in_channels, data.image_size, data.image_size, device=anchor.device)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    print(f"{loaded.path}: {options.arch}, {KINDS[loaded.file.kind]}")
    if loaded.file.deps is not None:
        print(f"deps: {loaded.file.deps}")
    print(f"MACs: {count_macs(loaded.model, image):,}  parameters: {parameters:,}")
    print(f"{data.name}, {val.num:,} images: top1={val.top1:.4f}, top5={val.top5:.4f}, loss={val.loss:.6f}")


def compare_files(
    base: Loaded, base_val: Evaluation, pruned: Loaded, pruned_val: Evaluation, paired: Paired, data: Data
) -> dict[str, Any]:
    """Print both side by side; the same for JSON."""
    comparison = compare(
        base.model,
        pruned.model,
        (data.in_channels, data.image_size, data.image_size),
        base_val=base_val,
        pruned_val=pruned_val,
        base_file=base.path,
        pruned_file=pruned.path,
    )
    ratio = comparison.pruned.macs / comparison.base.macs
    print(f"{base.path} and {pruned.path} ({ratio:.1%} of the MACs) on {data.name}, {pruned_val.num:,} images:\n")
    print(comparison.table())
    print(f"\n{in_words(paired)}\ndeps: {pruned.file.deps}")
    return {**comparison.to_dict(), "macs_ratio": ratio, "paired": paired.to_dict()}


def in_words(paired: Paired) -> str:
    """What the images on which only one of the two is right say of the difference."""
    counts = f"base alone is right on {paired.only_first:,} images, pruned alone on {paired.only_second:,}"
    where = "within" if abs(paired.points) <= 2 * paired.standard_error else "beyond"
    change = f"top-1 {paired.points:+.2f} points, standard error {paired.standard_error:.2f}"
    return f"{counts}: {change} ({where} two of them)"


def beside(weights: Path, name: str) -> Any:
    """What the run that wrote a weight file says of itself (recipe, seed, versions, commit, hardware)."""
    path = weights.parent / name
    return json.loads(path.read_text()) if path.is_file() else None


if __name__ == "__main__":
    main()
