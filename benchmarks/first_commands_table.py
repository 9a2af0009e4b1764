"""What first_commands.json says, as README's sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def first_commands_sentence(results: Mapping[str, Any]) -> str:
    """Disk and minutes of the first commands, and where that was."""
    targets = results["targets"]
    gigabytes = targets[".venv/.installed"]["environment_bytes"] / 1e9
    minutes = {name: target["seconds"] / 60 for name, target in targets.items()}
    cpu, cores = results["hardware"]["cpu"], results["cores"]
    return (
        f"Measured in a fresh clone: the environment of the scripts takes {gigabytes:.1f} GB and "
        f"{minutes['.venv/.installed']:.1f} minutes with packages at hand, `make demo` then {minutes['demo']:.1f} "
        f"minutes; what the tests need {minutes['.venv/.installed-dev']:.1f}, `make test-fast` then "
        f"{minutes['test-fast']:.1f}, `make test` {minutes['test']:.1f} ({cpu}, {cores} "
        f"core{'s' * (cores != 1)}, torch {results['versions']['torch']}; "
        "`python benchmarks/first_commands.py`)."
    )
