"""A base network and its pruned one side by side: accuracy, MACs, parameters, time per image, size on disk."""

import io
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from training.evaluation import Evaluation


@dataclass(frozen=True)
class Figures:
    """One network's figures. ms_per_image: batch size -> milliseconds, median of the rounds."""

    val: Evaluation
    macs: int
    parameters: int
    ms_per_image: dict[int, float]
    bytes_on_disk: int


@dataclass(frozen=True)
class Comparison:
    """Base against pruned. speed_up: batch size -> how many times faster, the median of the rounds' own ratios."""

    base: Figures
    pruned: Figures
    speed_up: dict[int, float]
    device: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def table(self) -> str:
        """The figures as lines of text: what, base, pruned, change."""
        base, pruned = self.base, self.pruned
        rows = [
            ("", "base", "pruned", "change"),
            _row("top-1 %", base.val.top1, pruned.val.top1, "{:.2f}", _difference),
            _row("top-5 %", base.val.top5, pruned.val.top5, "{:.2f}", _difference),
            _row("loss", base.val.loss, pruned.val.loss, "{:.4f}", partial(_difference, digits=4)),
            _row("MACs", base.macs, pruned.macs, "{:,}", _percent),
            _row("parameters", base.parameters, pruned.parameters, "{:,}", _percent),
            _row("bytes on disk", base.bytes_on_disk, pruned.bytes_on_disk, "{:,}", _percent),
        ]
        for size, speed_up in self.speed_up.items():
            times = (f"{figures.ms_per_image[size]:.4f}" for figures in (base, pruned))
            rows.append((f"ms/image, batch {size}", *times, f"{speed_up:.2f}x faster"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        )


def _row(name: str, base: float, pruned: float, form: str, change: Any) -> tuple[str, str, str, str]:
    return name, form.format(base), form.format(pruned), change(base, pruned)


def _difference(base: float, pruned: float, digits: int = 2) -> str:
    return f"{pruned - base:+.{digits}f}"


def _percent(base: float, pruned: float) -> str:
    return f"{100 * (pruned / base - 1):+.1f}%"


@torch.no_grad()
def count_macs(model: nn.Module, images: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers for one image of `images` [n, C, H, W].

    Half of what torch's own FLOP counter counts, which takes a multiplication and an addition as two.
    """
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(images)
    model.train(was_training)
    macs, rest = divmod(counter.get_total_flops(), 2 * len(images))
    assert rest == 0
    return macs


def compare(
    base: nn.Module,
    pruned: nn.Module,
    image_shape: Sequence[int],
    *,
    base_val: Evaluation,
    pruned_val: Evaluation,
    base_file: str | Path | None = None,
    pruned_file: str | Path | None = None,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = 20,
) -> Comparison:
    """Compare two networks on the device of the base one, in eval mode; image_shape is (C, H, W).

    Without a file, the size on disk is that of the saved state dict. Timing takes base and pruned in turn, so that a
    machine's slow moments meet both.
    """
    device = next(base.parameters()).device
    pruned.to(device)
    ms: dict[int, tuple[float, float]] = {}
    speed_up: dict[int, float] = {}
    for size in batch_sizes:
        ms[size], speed_up[size] = _time_paired(base, pruned, torch.randn(size, *image_shape, device=device), rounds)

    def figures(model: nn.Module, val: Evaluation, file: str | Path | None, place: int) -> Figures:
        return Figures(
            val,
            count_macs(model, torch.zeros(1, *image_shape, device=device)),
            sum(parameter.numel() for parameter in model.parameters()),
            {size: ms[size][place] for size in batch_sizes},
            Path(file).stat().st_size if file is not None else _saved_size(model),
        )

    return Comparison(
        figures(base, base_val, base_file, 0), figures(pruned, pruned_val, pruned_file, 1), speed_up, str(device)
    )


@torch.inference_mode()
def _time_paired(
    base: nn.Module, pruned: nn.Module, images: torch.Tensor, rounds: int
) -> tuple[tuple[float, float], float]:
    """Median ms per image of both, and the median over the rounds of base / pruned."""
    models = (base, pruned)
    modes = [model.training for model in models]
    for model in models:
        model.eval()
        for _ in range(2):  # warm-up: memory, and the choice of kernels
            _time_once(model, images)
    times = [tuple(_time_once(model, images) for model in models) for _ in range(rounds)]
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)
    medians = tuple(statistics.median(column) for column in zip(*times, strict=True))
    return (medians[0], medians[1]), statistics.median(first / second for first, second in times)


def _time_once(model: nn.Module, images: torch.Tensor) -> float:
    _synchronise(images.device)
    began = time.perf_counter()
    model(images)
    _synchronise(images.device)
    return 1000 * (time.perf_counter() - began) / len(images)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _saved_size(model: nn.Module) -> int:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()
