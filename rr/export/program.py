"""Networks as programs of torch.export, which run with torch alone, for any batch and any size of the images."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from rr.errors import InputError, first_line
from rr.graph.exporting import DataAsDetached, without_dumps
from rr.weights.card import NetworkCard
from rr.whole_files import written_whole

MOST_PIXELS = 2**31  # a size that is free may be that large, and larger
CARD_FILE = "resrep.json"  # in a .pt2 file: `torch.export.load(path, extra_files={"resrep.json": ""})` reads it


def exported_program(model: nn.Module, images: Tensor) -> tuple[ExportedProgram, bool]:
    """The network in eval mode as a program for any batch, and for images of any size where the network has it.

    Args:
        model: takes one tensor, [N, C, H, W]; stays as it is.
        images: an example of any batch; two images are exported, as torch makes a batch of 1 a constant.

    Returns:
        The program, and whether it takes other heights and widths.

    Raises:
        InputError: if torch can't export the network with a batch that is free.
    """
    was_training = model.training
    images = images[:1].expand(2, *images.shape[1:]).clone()
    free = {dim: Dim.DYNAMIC for dim in range(images.ndim) if dim != 1}  # dimension 1: channels
    try:
        model.eval()
        for dims in (free, {0: Dim.DYNAMIC}):
            try:
                with without_dumps(), DataAsDetached(), torch.no_grad(), _rounded_sizes_refused():
                    program = torch.export.export(model, (images,), dynamic_shapes=(dims,), strict=False)
                if not _is_bounded(program):
                    return program, len(dims) > 1
                failed = ValueError("it takes no larger images than the example's")
            except Exception as error:  # torch raises nearly anything for what it can't export
                failed = error
        raise InputError(f"torch can't export the network ({first_line(failed)})") from failed
    finally:
        model.train(was_training)


def _is_bounded(program: ExportedProgram) -> bool:
    """Whether a size that is to be free has a limit.

    Where a network makes a map of one pixel of the example, torch takes that for a constant, and larger images, with
    larger maps, are refused; a runtime that checks no sizes (ONNX) computes something else.
    """
    return any(bool(allowed.upper < MOST_PIXELS) for allowed in program.range_constraints.values())


@contextmanager
def _rounded_sizes_refused() -> Iterator[None]:
    """Within the context, `math.ceil` and `math.floor` of a size that is free raise.

    timm's `tf_` networks pad by such sizes. torch exports them, each such layer in four times as long as the one before
    (minutes for a network), and then can't save what it exported.
    """
    rounding = {name: getattr(torch.SymFloat, name) for name in ("__ceil__", "__floor__")}

    def refuse(size: torch.SymFloat) -> int:
        raise NotImplementedError(f"a size is rounded: {size}")

    try:
        for name in rounding:
            setattr(torch.SymFloat, name, refuse)
        yield
    finally:
        for name, method in rounding.items():
            setattr(torch.SymFloat, name, method)


def save_program(path: str | Path, program: ExportedProgram, card: NetworkCard) -> None:
    """Write a program as `.pt2`, with the card in it, whole or not at all.

    Raises:
        InputError: if torch can't save the program.
    """
    held = io.BytesIO()
    try:
        torch.export.save(program, held, extra_files={CARD_FILE: card.to_json()})
    except Exception as error:  # torch raises nearly anything for what it can't save
        raise InputError(f"torch can't save the program ({first_line(error)})") from error
    with written_whole(path) as temporary:
        temporary.write_bytes(held.getbuffer())
