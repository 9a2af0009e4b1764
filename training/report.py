"""A base network and its pruned one side by side: accuracy, MACs, parameters, time per image, size on disk.

Speed is that of both networks with their BN folded into the convolutions, each at the number of threads that suits it
best, so that it shows what pruning gains and nothing else.
"""

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
    """One network's figures.

    Attributes:
        val: how good it is.
        macs: multiply-accumulates per image.
        parameters: how many it has.
        ms_per_image: batch size -> milliseconds, BN folded, the median of the rounds at the best number of threads.
        threads: batch size -> that number of PyTorch's threads (on the CPU).
        bytes_on_disk: the size of its file.
    """

    val: Evaluation
    macs: int
    parameters: int
    ms_per_image: dict[int, float]
    threads: dict[int, int]
    bytes_on_disk: int


@dataclass(frozen=True)
class Comparison:
    """Base against pruned.

    Attributes:
        base, pruned: each network's figures.
        speed_up: batch size -> how many times faster the pruned one is, the median of the rounds' own ratios.
        device: what both were timed on.
    """

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
            threads = " and ".join(dict.fromkeys(str(figures.threads[size]) for figures in (base, pruned)))
            name = f"ms/image, batch {size}, BN folded, threads: {threads}"
            rows.append((name, *times, f"{speed_up:.2f}x faster"))
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
    folded_base: nn.Module,
    base_val: Evaluation,
    pruned_val: Evaluation,
    base_file: str | Path | None = None,
    pruned_file: str | Path | None = None,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = 20,
    most_seconds: float = 60.0,
    threads: Sequence[int] | None = None,
) -> Comparison:
    """Compare two networks on the device of the base one, in eval mode.

    Args:
        base: the network that was pruned.
        pruned: what it became.
        image_shape: (C, H, W).
        folded_base: the base with its BN folded, to time against the pruned one, which has none.
        base_val, pruned_val: how good they are.
        base_file, pruned_file: for the size on disk; None: that of the saved state dict.
        batch_sizes: how many images at a time are timed.
        rounds: how often, base and pruned in turn, so that a machine's slow moments hit both.
        most_seconds: limit for each batch size; where the rounds would take longer there are fewer, but at least 3.
        threads: numbers of PyTorch's threads to try on the CPU; None: 1 and as many as there are.
    """
    device = next(base.parameters()).device
    pruned.to(device)
    folded_base.to(device)
    counts = threads or sorted({1, torch.get_num_threads()})
    timed = {}
    for size in batch_sizes:
        images = torch.randn(size, *image_shape, device=device)
        timed[size] = _best_of_threads(folded_base, pruned, images, rounds, most_seconds, counts)

    def figures(model: nn.Module, val: Evaluation, file: str | Path | None, place: int) -> Figures:
        return Figures(
            val,
            count_macs(model, torch.zeros(1, *image_shape, device=device)),
            sum(parameter.numel() for parameter in model.parameters()),
            {size: found.ms[place] for size, found in timed.items()},
            {size: found.threads[place] for size, found in timed.items()},
            Path(file).stat().st_size if file is not None else _saved_size(model),
        )

    return Comparison(
        figures(base, base_val, base_file, 0),
        figures(pruned, pruned_val, pruned_file, 1),
        {size: found.speed_up for size, found in timed.items()},
        str(device),
    )


@dataclass(frozen=True)
class _Timed:
    """ms per image of two networks, the number of threads of each, and how many times the second is faster."""

    ms: tuple[float, float]
    threads: tuple[int, int]
    speed_up: float


@torch.inference_mode()
def _best_of_threads(
    base: nn.Module, pruned: nn.Module, images: torch.Tensor, rounds: int, most_seconds: float, counts: Sequence[int]
) -> _Timed:
    """Time each at the number of threads with the least median; a round takes all numbers and both networks in turn."""
    before, models = torch.get_num_threads(), (base, pruned)
    if images.device.type != "cpu":
        counts = (before,)
    modes = [model.training for model in models]
    for model in models:
        model.eval()

    def one_round() -> dict[int, tuple[float, float]]:
        found = {}
        for count in counts:
            torch.set_num_threads(count)
            found[count] = _time_once(base, images), _time_once(pruned, images)
        return found

    one_round()  # warm-up: memory, and the choice of kernels
    began = time.perf_counter()
    one_round()
    affordable = int(most_seconds / (time.perf_counter() - began))
    found = [one_round() for _ in range(max(3, min(rounds, affordable)))]
    torch.set_num_threads(before)
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)
    medians = [{count: statistics.median(one[count][place] for one in found) for count in counts} for place in (0, 1)]
    first, second = (min(counts, key=of_count.__getitem__) for of_count in medians)
    ratios = [one[first][0] / one[second][1] for one in found]
    return _Timed((medians[0][first], medians[1][second]), (first, second), statistics.median(ratios))


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
