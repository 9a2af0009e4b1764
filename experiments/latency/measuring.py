"""Two files of weights timed against each other, and where the time went. What `tools/latency.py` does."""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_model import build_any
from experiments.exporting import card_of
from experiments.latency.layers import layer_times
from experiments.latency.tables import (
    Counted,
    Measured,
    as_csv,
    described,
    described_layers,
    figure_of,
    layer_rows,
    rows_of,
)
from experiments.testing import arch_of, folded, named_in
from experiments.weight_files import check_is_done, check_is_weights
from rr import InputError, NetworkCard
from rr.export import exported_program
from rr.export.runtimes import write_program
from rr.latency.engines import engine, why_not
from rr.latency.rounds import in_turn, spread
from rr.latency.settings import Timing
from rr.weights import WeightFile, network_in, read_weights
from rr.whole_files import write_text_whole, written_whole
from training import count_macs, logged_on_terminal

logger = logging.getLogger(__name__)

_BY_ONNX = ("onnxruntime", "openvino")


@logged_on_terminal()
def measured(options: argparse.Namespace) -> str:
    """Time both networks in every setting, and write the CSV, the plot, and the CSV of the layers beside.

    Args:
        options: those of `tools/latency.py`.

    Returns:
        The findings, as text.

    Raises:
        InputError: for what a user can put right.
    """
    paths = (options.base, options.pruned)
    for path in paths:
        check_is_weights(path)
    if options.output.suffix != ".csv":
        raise InputError(f"--output {options.output} must end in .csv")
    files = opened(paths, options.arch)
    before = torch.get_num_threads()
    threads = options.threads or sorted({1, before})
    with tempfile.TemporaryDirectory() as folder:
        shape = shape_of(files, options.image_size)
        keywords = next((file.card.keywords for file in files if file.card.keywords), {})
        needed = any(runtime in _BY_ONNX for runtime in options.runtimes)
        places = [Path(folder) / f"{place}.onnx" if needed else None for place in range(2)]
        base, pruned = (ready(file, keywords, shape, onnx) for file, onnx in zip(files, places, strict=True))
        if pruned.macs >= base.macs:
            raise InputError(f"{pruned.name} has no fewer MACs than {base.name}: give the base network's file first")
        try:
            found, left_out = in_all_settings(base, pruned, shape, settings_of(options, threads), options.seconds)
            layers = []
            if options.layers:
                logger.info("measuring layer by layer")
                torch.set_num_threads(threads[0])
                images = torch.randn(max(options.batch_sizes), *shape)
                layers = layer_times(base.model, pruned.model, images, min(options.seconds, 0.1))
        finally:
            torch.set_num_threads(before)
    lines = [described(found, base, pruned), *left_out]
    write_text_whole(options.output, as_csv(rows_of(found, base, pruned, shape[1])))
    written = [options.output, options.output.with_suffix(".png")]
    with written_whole(written[1]) as temporary:
        figure_of(found, base.macs / pruned.macs).savefig(temporary, format="png", dpi=150)
    if layers:
        threads_then = f"batch {max(options.batch_sizes)}, {threads[0]} thread{'s' if threads[0] > 1 else ''}"
        lines += ["", f"{described_layers(layers)}", f"layers: {threads_then}"]
        written.append(options.output.with_name(f"{options.output.stem}_layers.csv"))
        write_text_whole(written[-1], as_csv(layer_rows(layers)))
    return "\n".join([*lines, f"written: {', '.join(map(str, written))}"])


def settings_of(options: argparse.Namespace, threads: Sequence[int]) -> list[Timing]:
    """Every combination that is asked for, one runtime after the other."""
    return [
        Timing(runtime, precision, count, batch)
        for runtime in options.runtimes
        for precision in options.precisions
        for count in threads
        for batch in options.batch_sizes
    ]


@dataclass(frozen=True)
class Opened:
    """A file of weights that has been read, and what is known of its network."""

    path: Path
    arch: str
    file: WeightFile
    card: NetworkCard


def opened(paths: Sequence[Path], arch: str | None) -> list[Opened]:
    """Read files of weights.

    Args:
        paths: the files, of one network.
        arch: its name; None for the one that a file names, and then all hold that one.

    Raises:
        InputError: if a file is broken or in training, none says which network it holds, or they hold two.
    """
    read = [(path, read_weights(path)) for path in paths]
    for path, file in read:
        check_is_done(path, file)
    if arch is None:
        path, file = next((one for one in read if named_in(one[0], one[1].attributes)), read[0])
        arch = arch_of(argparse.Namespace(weights=path, arch=None), file.attributes)
    for path, file in read:
        arch_of(argparse.Namespace(weights=path, arch=arch), file.attributes)  # that it holds no other one
    return [Opened(path, arch, file, card_of(file, arch)) for path, file in read]


def shape_of(files: Sequence[Opened], image_size: int | None) -> tuple[int, int, int]:
    """The shape of an image that the networks take, (C, H, W), by the option and by what one of the files says.

    Raises:
        InputError: if they say different things.
    """
    channels = {file.card.in_channels for file in files} - {None}
    sizes = {image_size} if image_size else {file.card.image_size for file in files} - {None}
    if len(channels) > 1:
        raise InputError(f"{' and '.join(str(file.path) for file in files)} take images of other channels")
    if len(sizes) > 1:
        raise InputError(f"{' and '.join(str(file.path) for file in files)} take other images: give --image-size")
    size = sizes.pop() if sizes else 224
    return (channels.pop() if channels else 3), size, size


def ready(file: Opened, keywords: Mapping[str, Any], shape: tuple[int, int, int], onnx: Path | None) -> Counted:
    """A file's network with its BN folded.

    Args:
        file: which.
        keywords: what its constructor is called with.
        shape: of an image, (C, H, W).
        onnx: where to write it as ONNX; None for not at all.

    Raises:
        InputError: if the network can't be built or written.
    """
    logger.info("building %s from %s, and folding its batch norms", file.arch, file.path)
    network = network_in(file.file, lambda: build_any(file.arch, **keywords), str(file.path))
    model = folded(network.float().eval(), shape).eval()
    if onnx is not None:
        logger.info("exporting %s to ONNX", file.path)
        write_program(onnx, "onnx", exported_program(model, torch.zeros(2, *shape))[0], NetworkCard())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Counted(str(file.path), model, onnx, count_macs(model, torch.zeros(1, *shape)), parameters)


def in_all_settings(
    base: Counted, pruned: Counted, shape: tuple[int, int, int], settings: Sequence[Timing], seconds: float
) -> tuple[list[Measured], list[str]]:
    """Both networks in each setting, in turn, and a line for each setting that this machine hasn't got.

    Raises:
        InputError: if there is none that it has.
    """
    generator = torch.Generator().manual_seed(0)
    found, left_out = [], {}
    for number, setting in enumerate(settings, 1):
        reason = why_not(setting)
        if reason is not None:
            left_out[f"left out: {setting.runtime} in {setting.precision}: {reason}"] = True
            continue
        logger.info("measuring %s (%d of %d)", setting, number, len(settings))
        torch.set_num_threads(setting.threads)
        found.append(
            one_setting(base, pruned, torch.randn(setting.batch, *shape, generator=generator), setting, seconds)
        )
    if not found:
        raise InputError(f"nothing can be measured: {'; '.join(left_out)}")
    return found, list(left_out)


def one_setting(base: Counted, pruned: Counted, images: Tensor, setting: Timing, seconds: float) -> Measured:
    """Both networks, in turn."""
    torch.compiler.reset()  # what was compiled for another batch or number of threads
    times = in_turn([engine(network, setting, images) for network in (base, pruned)], seconds)
    ratios = [before / after for before, after in zip(*times, strict=True)]
    return Measured(setting, spread(times[0]), spread(times[1]), spread(ratios))
