"""The pages of the repository as their code blocks, and the commands in these."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.scripts import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"(?:^|[\s'])(?P<command>(?:python|torchrun) [^;]*)")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: its page's path in the checkout.
        line: of the page, that its text begins after.
        language: that the fence names.
        text: what is in it.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """A page's blocks, from top to bottom."""
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    return [
        Block(name, text.count("\n", 0, found.start()) + 1, found["language"], found["text"])
        for found in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


BLOCKS = [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> list[list[str]]:
    """The words of each line of a shell block that starts Python or torchrun; those with `...` for the reader aside."""
    found = []
    for line in block.text.replace("\\\n", " ").splitlines():
        match = _COMMAND.search(line.split("#")[0].rstrip())
        if match and "..." not in match["command"] and not line.startswith("#"):
            command = re.sub(r"\$\w+", "1", match["command"])  # what SLURM's variables are on one machine
            quoted = command.endswith("'") and command.count("'") % 2  # the end of bash -c '...'
            found.append(shlex.split(command[:-1] if quoted else command))
    return found
