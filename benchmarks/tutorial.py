"""The blocks of docs/tutorial.md, run from first to last as they stand there, and the time that each takes.

    python benchmarks/tutorial.py PHOTOGRAPHS     # estimated at 10 minutes of a core with 200 photographs

PHOTOGRAPHS has train/ and val/, each with a folder per class, as the page asks for. Everything happens in a folder of
its own (--folder), where the checkout's files are links; lines that begin with `pip` or `cd` are left out: the packages
must be there. A Python block whose first line is `# NAME.py` is saved under that name, the others run. What the blocks
print goes to the terminal. The first that fails ends it all.

Writes results/tutorial.json, by heading of the page: seconds, and seconds of processor time of all processes together,
which a busy machine hardly changes; then run tools/results_table.py.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from data.folder import list_class_folders
from data.registry import cores
from rr.whole_files import write_text_whole
from training import init_world, surroundings
from training.endings import ends_in_one_line
from training.options import OptionParser

PAGE = ROOT / "docs" / "tutorial.md"
PHOTOGRAPHS = "photos"  # as the page calls their folder
LEFT_OUT = ("pip ", "cd ")
_PART = re.compile(
    r"^## (?P<heading>[^\n]+)$|^```(?P<language>sh|python)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_FILE = re.compile(r"# (?P<name>\w+\.py)\b")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the page and write the times."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("photographs", type=Path, help="the folder with train/ and val/")
    parser.add_argument("--folder", type=Path, help="where all is done, and kept (default: one that goes again)")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "tutorial.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ends_in_one_line(), tempfile.TemporaryDirectory() as passing, init_world("cpu") as world:
        folder = (options.folder or Path(passing)).resolve()
        lay_out(folder, options.photographs.resolve())
        around = surroundings(world)
        found = list_class_folders(options.photographs)
        images = {"train": len(found.train.files), "val": len(found.val.files)}
        blocks = [
            {"heading": heading, **taken(folder, language, text)}
            for heading, language, text in blocks_of(PAGE.read_text())
        ]
        result = {**around, "cores": cores(), "photographs": images, "blocks": blocks}
        write_text_whole(options.output, json.dumps(result, indent=1) + "\n")


def lay_out(folder: Path, photographs: Path) -> None:
    """Make the folder look like a checkout with the photographs in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in ROOT.iterdir():
        if not (path.name.startswith(".") or (folder / path.name).exists()):
            (folder / path.name).symlink_to(path)
    if not (folder / PHOTOGRAPHS).exists():
        (folder / PHOTOGRAPHS).symlink_to(photographs)


def blocks_of(page: str) -> Iterator[tuple[str, str, str]]:
    """Heading, language and text of each block."""
    heading = ""
    for part in _PART.finditer(page):
        heading = part["heading"] or heading
        if part["text"] is not None:
            yield heading, part["language"], part["text"]


def taken(folder: Path, language: str, text: str) -> dict[str, float]:
    """Run a block, and say what time it took.

    Raises:
        CalledProcessError: if it fails.
    """
    began, used = time.perf_counter(), _processor_seconds()
    if language == "python" and (file := _FILE.match(text)):
        (folder / file["name"]).write_text(text)
    elif language == "python":
        subprocess.run([sys.executable, "-c", text], cwd=folder, check=True)
    else:
        lines = [line for line in text.splitlines() if not line.startswith(LEFT_OUT)]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # whose python it is
        subprocess.run(["bash", "-e", "-c", "\n".join(lines)], cwd=folder, check=True, env={**os.environ, "PATH": path})
    return {"seconds": time.perf_counter() - began, "processor_seconds": _processor_seconds() - used}


def _processor_seconds() -> float:
    """Of all processes that this one has started and that are over."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
