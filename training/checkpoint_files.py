"""Checkpoints on disk: plain values and tensors, whole or not at all, the ones before kept."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from rr.errors import InputError
from rr.records import check_records
from rr.whole_files import written_whole

LATEST = "latest.pth"
EARLIER = "latest-{}.pth"  # the checkpoint before, and the one before that, from 1

_EARLIER = re.compile(re.escape(EARLIER).replace(r"\{\}", "([1-9][0-9]*)"))

logger = logging.getLogger(__name__)

_KINDS = {
    **{"recipe": dict, "meter": dict, "model": dict, "optimizer": dict, "scheduler": dict, "callbacks": list},
    **{"epoch": int, "step": int},
}
_NEWER_KINDS = {"evaluations": dict, "skipped": dict}  # older checkpoints have none


def save(path: str | Path, state: dict[str, Any], keep: int | None = None) -> None:
    """Write a checkpoint; at every moment it, or the one before it, is there whole.

    Args:
        path: the file.
        state: tensors, numbers, strings, dicts, lists, tuples.
        keep: how many stay of a run that goes on: this one, latest.pth, and those before it, under other names.

    Raises:
        WriteError: if it can't be written (the disk is full, say); all before it stay.
    """
    with written_whole(path) as beside:
        import torch  # takes seconds, which a script's --help needn't wait for

        with open(beside, "wb") as file:  # torch tells no reason if it opens the file
            torch.save(state, file)
        if keep is not None:
            make_way(Path(path), keep)


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; a file from elsewhere can't run code.

    Raises:
        InputError: if it is missing, damaged, or no checkpoint of a run.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}: check the path")
    check_records(path)
    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file can make the unpickler raise nearly anything
        raise InputError(f"{path} isn't a whole checkpoint ({type(error).__name__})") from error
    if missing := _misfits(saved):
        raise InputError(f"{path} is no checkpoint of a run ({', '.join(missing)} missing or of another kind)")
    return saved


def newest(folder: str | Path) -> dict[str, Any]:
    """The newest checkpoint in a run's folder that is whole; for each newer one a line says what is wrong with it.

    Raises:
        InputError: if none is.
    """
    problems = []
    for path in checkpoints(folder):
        try:
            saved = load(path)
        except InputError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            logger.warning("%s; going on from %s", problem, path.name)
        return saved
    raise InputError(f"{'; '.join(problems) or f'{folder} has no checkpoint'}: '-c fs' starts the run again")


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run that isn't finished, the newest first."""
    latest = Path(folder) / LATEST
    earlier = (latest.with_name(EARLIER.format(number)) for number in _kept(latest))
    return [path for path in (latest, *earlier) if path.exists()]


def make_way(latest: Path, keep: int) -> None:
    """Let latest.pth become the checkpoint before, and that the one before it; at most `keep` - 1 of them stay.

    A kill in between leaves no latest.pth, but the one before it under its new name: `checkpoints` finds it.
    """
    for number in reversed(_kept(latest)):
        path = latest.with_name(EARLIER.format(number))
        if number >= keep:
            path.unlink(missing_ok=True)
        elif number < keep - 1:
            os.replace(path, latest.with_name(EARLIER.format(number + 1)))
    if keep > 1 and latest.exists():
        os.replace(latest, latest.with_name(EARLIER.format(1)))


def _misfits(saved: Any) -> list[str]:
    """The parts of a checkpoint that are missing, or of another kind."""
    if not isinstance(saved, dict):
        return list(_KINDS)
    kinds = {**_KINDS, **{name: kind for name, kind in _NEWER_KINDS.items() if name in saved}}
    return [
        name
        for name, kind in kinds.items()
        if not isinstance(saved.get(name), kind) or (kind is int and saved[name] < 0)
    ]


def _kept(latest: Path) -> list[int]:
    """The numbers of the checkpoints before the latest, from the last one on."""
    found = (_EARLIER.fullmatch(path.name) for path in latest.parent.glob(EARLIER.format("*")))
    return sorted(int(match[1]) for match in found if match)
