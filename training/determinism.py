"""The same numbers again on a GPU, where some of the fastest kernels add up in whatever order their threads come."""

from __future__ import annotations

import os

import torch


def use_deterministic_kernels(device: torch.device) -> None:
    """For the rest of the process, on CUDA: kernels that give the same bits each time, or an error where there is none.

    On a CPU the same number of threads gives the same bits anyway, and nothing is changed.

    Args:
        device: the one that trains, on which nothing was computed yet.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it takes whichever kernel was the fastest this time
