"""Two runs of a study image by image: how certain the lead of one over the other is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rr.weights import load_network
from training import Paired, data_for, evaluate_pair, init_world, network_builder
from training.run_folder import CONVERTED_WEIGHTS, FINISH_WEIGHTS


def paired_runs(
    arch: str, dataset: str, data_dir: Path, pairs: Sequence[tuple[Path, Path]], hold_out: int = 0
) -> list[Paired]:
    """For each pair of finished runs' folders, on how many validation images only one of them is right.

    In float32, as the runs are tested when they are finished.

    Args:
        arch: the network's name.
        dataset: name of the data set.
        data_dir: where its files are.
        pairs: the folders.
        hold_out: training images that take the validation images' place.
    """
    if not pairs:
        return []
    data = data_for(arch, dataset, str(data_dir), hold_out=hold_out)
    build, found = network_builder(arch, data), []
    with init_world("auto") as world:
        for pair in pairs:
            first, second = (load_network(last_weights(folder), build)[0].to(world.device) for folder in pair)
            *_, paired = evaluate_pair(first, second, data, world, batch_size=256, channels_last=True)
            found.append(paired)
    return found


def last_weights(folder: Path) -> Path:
    """The weights that a finished run ends with: the converted network's if it has one."""
    converted = folder / CONVERTED_WEIGHTS
    return converted if converted.exists() else folder / FINISH_WEIGHTS
