"""What a newcomer waits for: the README's commands in a fresh clone, and what the environment takes on the disk.

    python benchmarks/first_commands.py      # estimated at 20 minutes of two cores, and 6 GB for as long

The commit that is checked out is cloned into a folder of its own, and make sets it up, runs the demo and runs the tests
there, one after the other, each timed; what they print goes to the terminal. The first that fails ends it all. The
times are those of this machine with nothing else to do; how fast packages come decides the first one.

Writes results/first_commands.json; then run tools/results_table.py, which writes README's sentence from it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from data.registry import cores
from rr.errors import InputError
from rr.whole_files import write_text_whole
from training import init_world, surroundings
from training.endings import ends_in_one_line
from training.options import OptionParser

# Of the Makefile, in a newcomer's order.
TARGETS = (".venv/.installed", "demo", ".venv/.installed-dev", "test-fast", "test")
ENVIRONMENT = ".venv"


def main(arguments: Sequence[str] | None = None) -> None:
    """Clone, run make, write the times."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the clone is made, and kept (default: one that goes again)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "first_commands.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ends_in_one_line(), tempfile.TemporaryDirectory() as passing, init_world("cpu") as world:
        around = surroundings(world)
        folder = (options.folder or Path(passing) / "clone").resolve()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        found = {target: made(folder, target) for target in TARGETS}
        result = {**around, "cores": cores(), "targets": found}
        write_text_whole(options.output, json.dumps(result, indent=1) + "\n")


def made(folder: Path, target: str) -> dict[str, float]:
    """Let make make `target` in `folder`: the seconds, and the bytes on disk of the environment then.

    Raises:
        InputError: if it fails.
    """
    alone = {  # the clone is to find its own environment
        name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS")
    }
    began = time.perf_counter()
    if subprocess.run(["make", target], cwd=folder, env=alone).returncode:
        raise InputError(f"make {target} failed in {folder}: what it printed says why; mend that, then measure again")
    return {"seconds": time.perf_counter() - began, "environment_bytes": bytes_on_disk(folder / ENVIRONMENT)}


def bytes_on_disk(folder: Path) -> int:
    """What deleting the folder would give back: a file of several names counts once, links are not followed."""
    blocks: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        blocks[status.st_dev, status.st_ino] = status.st_blocks
    return 512 * sum(blocks.values())


if __name__ == "__main__":
    main()
