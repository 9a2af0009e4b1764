"""Result files that are written piece by piece, all of it at one commit: a stopped measurement goes on where it was."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training import World, surroundings


def made_with(world: World, packages: Sequence[str]) -> dict[str, Any]:
    """The run's surroundings, with the versions of more packages."""
    around = surroundings(world)
    around["versions"] |= {package: importlib.metadata.version(package) for package in packages}
    return around


def held(path: Path, around: Mapping[str, Any], name: str) -> Any:
    """What the file has by this name, if it was made at the present commit; else None."""
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    return found[name] if found["commit"] == around["commit"] else None
