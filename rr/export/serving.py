"""What a shipped file predicts: the network and its card from `.safetensors`, `.pt2` or `.onnx` alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from rr.errors import InputError
from rr.export.onnx_checksum import check_onnx
from rr.export.program import CARD_FILE
from rr.export.pruned import SUFFIX, load_pruned
from rr.export.runtimes import Runner, package, runner
from rr.graph.exporting import without_dumps
from rr.records import check_records
from rr.weights import checksums
from rr.weights.arrays import check_is_file
from rr.weights.card import CARD_KEY, NetworkCard


@dataclass(frozen=True)
class Served:
    """A network that can be asked.

    Attributes:
        run: normalised images, float32 [N, C, H, W], to outputs.
        card: what its file says.
    """

    run: Runner
    card: NetworkCard

    def probabilities(self, images: Tensor) -> Tensor:
        """Of each class, [N, classes], for images with values in 0 ... 1, [N, C, H, W]."""
        return self.run(normalised(images, self.card))[0].softmax(1)


def normalised(images: Tensor, card: NetworkCard) -> Tensor:
    """Images with values in 0 ... 1, [N, C, H, W], as the card's network takes them."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (card.mean, card.std))
    return (images - mean) / std


def load_served(path: str | Path) -> Served:
    """The network in a file, ready to be asked.

    A `.pt2` file is a program: run one only if you trust whoever made it.

    Args:
        path: `.safetensors` (of `save_pruned`), `.pt2`, or `.onnx`.

    Raises:
        InputError: if the file is missing, broken or damaged, ends in something else, or lacks the normalisation.
    """
    path = Path(path)
    check_is_file(path)
    loaders = {SUFFIX: _of_safetensors, ".pt2": _of_pt2, ".onnx": _of_onnx}
    if path.suffix not in loaders:
        raise InputError(f"{path} must end in one of {', '.join(loaders)}")
    served = loaders[path.suffix](path)
    if not served.card.mean or served.card.image_size is None:
        raise InputError(f"{path} doesn't say how images are normalised: write it again from a card that does")
    return served


def _of_safetensors(path: Path) -> Served:
    model = load_pruned(path)
    return _asked(model, model.card)


def _asked(model: nn.Module, card: NetworkCard) -> Served:
    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return tree_leaves(model(images))

    return Served(run, card)


def _of_pt2(path: Path) -> Served:
    extra = {CARD_FILE: ""}
    has_checksums = check_records(path)
    try:
        with without_dumps():
            model = torch.export.load(str(path), extra_files=extra).module()
    except Exception as error:  # a damaged archive raises nearly anything
        raise InputError(f"{path} isn't a whole .pt2 file ({type(error).__name__}): write or copy it again") from error
    if not has_checksums:
        checksums.tell_of_none(path)
    return _asked(model, _card(extra[CARD_FILE], path))


def _of_onnx(path: Path) -> Served:
    package("onnxruntime")
    onnx = package("onnx")
    has_checksum = check_onnx(path)
    try:
        held = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
        run = runner(path, "onnx")
    except Exception as error:  # protobuf's and the runtime's errors have no common class
        raise InputError(f"{path} isn't a whole .onnx file ({type(error).__name__}): write or copy it again") from error
    if not has_checksum:
        checksums.tell_of_none(path)
    return Served(run, _card(held.get(CARD_KEY, ""), path))


def _card(text: str | bytes, path: Path) -> NetworkCard:
    if not text:
        raise InputError(f"{path} holds no card: write it with tools/export.py, or rr.save_pruned")
    return NetworkCard.from_json(text if isinstance(text, str) else text.decode("utf-8", "replace"), str(path))
