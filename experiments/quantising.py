"""A network in int8, and how often it is right before and after, on real images. What `tools/export.py --int8` does."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from data.folder import Listing, list_class_folders
from data.images import BadImages, read_image, with_others
from experiments.predicting import as_validated
from rr import InputError, NetworkCard
from rr.export.quantising import quantise_onnx
from rr.export.runtimes import Runner, runner, write_program
from rr.export.serving import normalised
from rr.whole_files import write_text_whole

TOGETHER = 32  # images in a batch


@dataclass(frozen=True)
class Accuracy:
    """Two forms of a network on the same images.

    Attributes:
        images: how many.
        before, after: share in percent that float32 and int8 are right on.
        same: share in percent on which both say the same.
    """

    images: int
    before: float
    after: float
    same: float


def check_int8(options: argparse.Namespace) -> None:
    """Check that the options for int8 go together.

    Raises:
        InputError: if they don't.
    """
    if not options.int8:
        if options.calibrate is not None:
            raise InputError("--calibrate is for --int8: give both, or none")
        return
    if options.format == "openvino":
        raise InputError(
            "OpenVINO's own int8 needs nncf, which this tool doesn't use: take --format onnx, which it reads"
        )
    if options.format != "onnx":
        raise InputError(f"there is no int8 for --format {options.format}: take --format onnx")
    if options.calibrate is None:
        raise InputError("--int8 needs --calibrate DIR, with real images in DIR/train/CLASS and DIR/val/CLASS")
    if options.calibration_images < 1:
        raise InputError(f"--calibration-images is {options.calibration_images}: give at least 1")


def quantised(
    model: nn.Module, program: ExportedProgram, card: NetworkCard, size: int, path: Path, options: argparse.Namespace
) -> str:
    """Quantise, test both forms on the validation images, and write what was found beside the file.

    Args:
        model: in eval mode, on the CPU in float32.
        program: the same.
        card: what its file says of it.
        size: of the images.
        path: the file to write.
        options: those of `tools/export.py`.

    Returns:
        What was found, as text.

    Raises:
        InputError: for what a user can put right.
    """
    if not card.mean:
        raise InputError(
            f"{options.weights} doesn't say how images are normalised: export a .safetensors file that does"
        )
    folders = list_class_folders(options.calibrate)
    labels = _labels(folders.classes, card)
    shown = _evenly(folders.train.files, options.calibration_images)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float32.onnx"
        write_program(source, "onnx", program, card)
        quantise_onnx(source, path, batches_of(shown, card, size))
    found = accuracy(model, runner(path, "onnx"), folders.val, labels, card, size)
    beside = path.with_name(f"{path.name}.json")
    result = {"file": path.name, "int8": {**asdict(found), "calibration_images": len(shown)}}
    write_text_whole(beside, json.dumps(result, indent=2) + "\n")
    return (
        f"{found.images:,} images of {options.calibrate}: top-1 {found.before:.2f}% in float32, "
        f"{found.after:.2f}% in int8; the same answer on {found.same:.2f}%\n"
        f"{path}: int8, ranges from {len(shown):,} images; the figures: {beside}"
    )


def accuracy(
    model: nn.Module, run: Runner, listing: Listing, labels: Sequence[int], card: NetworkCard, size: int
) -> Accuracy:
    """How often a network and its other form are right.

    Args:
        model: in eval mode.
        run: the other form.
        listing: the images.
        labels: for each of the listing's classes, the output that stands for it.
        card: how images are normalised.
        size: of the images.
    """
    truth = torch.tensor(labels)[torch.from_numpy(listing.labels)]
    before, after = [], []
    for images in batches_of(listing.files, card, size):
        with torch.no_grad():
            before.append(model(images).argmax(1))
        after.append(run(images)[0].argmax(1))
    first, second = torch.cat(before), torch.cat(after)
    of = [
        100 * (one == other).double().mean().item() for one, other in ((first, truth), (second, truth), (first, second))
    ]
    return Accuracy(len(truth), *of)


def batches_of(files: Sequence[str], card: NetworkCard, size: int) -> Iterator[Tensor]:
    """Images as in validation, normalised: float32 [at most TOGETHER, C, size, size].

    Raises:
        BadImages: naming all that are broken.
    """
    for first in range(0, len(files), TOGETHER):
        try:
            images = [as_validated(read_image(file, len(card.mean)), size) for file in files[first : first + TOGETHER]]
        except BadImages as error:
            raise with_others(error.found, tuple(files)) from error
        yield normalised(torch.stack(images), card)


def _labels(classes: Sequence[str], card: NetworkCard) -> list[int]:
    """For each class's folder the output of the network that stands for it."""
    if not card.classes:
        return list(range(len(classes)))
    unknown = [name for name in classes if name not in card.classes]
    if unknown:
        raise InputError(f"--calibrate has classes that the network doesn't know: {', '.join(unknown[:5])}")
    return [card.classes.index(name) for name in classes]


def _evenly(files: Sequence[str], most: int) -> list[str]:
    """At most so many, from all classes, as they come in order."""
    count = min(most, len(files))
    return [files[place * len(files) // count] for place in range(count)]
