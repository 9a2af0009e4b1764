"""What tutorial.json says, as a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def tutorial_table(results: Mapping[str, Any]) -> str:
    """Each heading's processor time, in minutes that are rounded up: it says what to expect, and is no benchmark."""
    seconds: dict[str, float] = {}
    for block in results["blocks"]:
        seconds[block["heading"]] = seconds.get(block["heading"], 0.0) + block["processor_seconds"]
    rows = ["| step | minutes of a core, rounded up |", "| --- | --- |"]
    rows += [f"| {heading} | {math.ceil(used / 60)} |" for heading, used in seconds.items()]
    images = results["photographs"]
    made = (
        f"`results/tutorial.json`: {images['train']} photographs to train on and {images['val']} to test, "
        f"{results['hardware']['cpu']}, {results['cores']} core{'s' * (results['cores'] != 1)}, "
        f"torch {results['versions']['torch']}, commit {results['commit'][:10]}."
    )
    return "\n".join([*rows, "", made])
