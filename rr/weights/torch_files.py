"""Tensors and plain values in files that torch.save wrote, read without running anything that the file says."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from rr.errors import InputError
from rr.weights.arrays import check_is_file
from rr.whole_files import written_whole


def save_pth(path: str | Path, payload: Any) -> None:
    """Write tensors and plain values (dicts, lists, strings, numbers) with torch.save, whole or not at all.

    Args:
        path: the file; its folder is made if it isn't there.
        payload: what `read_pth` gives back.
    """
    with written_whole(path) as temporary:
        torch.save(payload, temporary)


def read_pth(path: str | Path) -> Any:
    """Read a file of tensors and plain values onto the CPU, executing nothing that the file says.

    The options of a script, an argparse.Namespace, count as plain: torchvision's and timm's own scripts store them.

    Raises:
        InputError: if the file is missing, broken, or holds anything else.
    """
    check_is_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the unpickler raise nearly anything
        reason = type(error).__name__  # torch's own message is a page long
        raise InputError(
            f"{path} isn't a whole .pth file of tensors and plain values ({reason}): write or copy it again"
        ) from error
