"""Checkpoints on disk: whole or not at all, and only plain values and tensors in them."""

import os
from pathlib import Path
from typing import Any

import torch


def save(path: str | Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, dicts, lists, tuples): `path` is at every moment either what it was or
    the whole new file, which is written beside it, forced to disk, then renamed. Errors (full disk) are raised.
    """
    path = Path(path)
    beside = path.with_name(path.name + ".new")
    with open(beside, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; `weights_only`, so that a file from elsewhere can't run code."""
    return torch.load(path, map_location="cpu", weights_only=True)
