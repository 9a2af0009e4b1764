"""What every part is told: on which device, how large, for how long, and where its data and files are."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
LEFT = "left"  # the key under which a part that isn't done says what is left of it


@dataclass(frozen=True)
class Setting:
    """One call of benchmarks/gpu.py.

    Attributes:
        output: the folder of the result files.
        device: 'cuda' or 'cpu'.
        dry_run: whether all is done at a tiny size, to see that it works; its figures mean nothing.
        cifar: a folder with train/ and test/ of CIFAR-10's images, or a tar file of that; None: the parts that want it
            take synthetic images, or can't be done.
        base: trained weights of src56 to prune; None: they are trained first.
        until: `time.time()` at which all must be over.
    """

    output: Path
    device: str = "cpu"
    dry_run: bool = True
    cifar: Path | None = None
    base: Path | None = None
    until: float = float("inf")

    @property
    def seconds_left(self) -> float:
        """Until the call's end."""
        return self.until - time.time()

    def file(self, part: str) -> Path:
        """A part's result; that of a dry run has another name, so that it is never taken for a measurement."""
        return self.output / (f"dry_run_{part}.json" if self.dry_run else f"{part}.json")

    def result(self, part: str) -> Figures | None:
        """What a part found, if it is done."""
        file = self.file(part)
        return json.loads(file.read_text())["figures"] if file.exists() else None
