"""What each of two processes of test_processes.py does: prune the same network on its own images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rr import RefitConfig, RefitReport, prune

OF_RANK = ((0, 1, 4), (2, 3, 5))  # its batches, the last one of each held out
Batch = tuple[Tensor, Tensor]


def pruned(numbers: Sequence[int]) -> nn.Module:
    """The network pruned on these batches: all places of all images, and a loss, so that nothing is drawn."""
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU())
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    batches = [(torch.randn(8, 3, 6, 6), torch.arange(8) % 4) for _ in range(6)]

    def loss_fn(network: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1])

    def timing(full: nn.Module, narrow: nn.Module, seconds: float) -> list[float]:
        assert not dist.is_initialized() or dist.get_rank() == 0, "the first process alone times"
        counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (narrow, full)]
        return [counts[0] / counts[1]] * 2

    how = RefitConfig(places=36, held_out=1 / 3)
    given = [batches[number] for number in numbers]
    return prune(model, batches[0][0], given, loss_fn=loss_fn, latency_target=0.55, timing=timing, refitting=how)


def figures(report: RefitReport) -> list[float]:
    """Those that are to be the same, in one process or two."""
    found = [report.fitted, report.held_out, report.outputs.before, report.outputs.after]
    found += [report.loss.full, report.loss.before, report.loss.after, report.latency.median]
    return found + [value for layer in report.layers.values() for value in vars(layer).values()]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    slim = pruned(OF_RANK[dist.get_rank()])
    found = {"state": slim.state_dict(), "figures": figures(slim.refit_report)}
    torch.save(found, Path(sys.argv[1]) / f"{dist.get_rank()}.pth")
    dist.destroy_process_group()
