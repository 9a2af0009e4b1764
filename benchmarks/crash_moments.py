"""Moments at which a run is killed: before a file event in its folder, or inside a function.

Nothing of the run is changed: Python itself tells of files that are opened, renamed and removed (its audit events), and
of calls.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rr.whole_files import BESIDE_SUFFIX

ROOT = Path(__file__).resolve().parent.parent
FILE_EVENT = "a file event"
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")  # audit events besides `open`
PARTS = {  # of a run: file and function
    "choosing rows": ("rr/pruner.py", "update_masks"),
    "narrowing": ("rr/narrowing/take_out.py", "take_out"),
    "folding in mid-run": ("rr/narrowing/refold.py", "refold"),
    "retiring": ("rr/narrowing/refold.py", "retire"),
    "refit": ("rr/refit/refitting.py", "refit"),
    "evaluation": ("training/evaluation.py", "evaluate"),
    "checkpoint": ("training/checkpoint.py", "save_run"),
    "conversion": ("rr/conversion/converter.py", "convert"),
    "export": ("rr/export/program.py", "exported_program"),
    "report": ("experiments/run_report/page.py", "write_report"),
}


@dataclass(frozen=True)
class Moment:
    """When a run is killed.

    Attributes:
        folder: the run's.
        place: `FILE_EVENT` or a name of `PARTS`.
        number: which one, from 1; 0: none.
        signal: its name.
        after: seconds from the beginning of that call.
        counts: the file that gets what there was: how many file events, and the seconds of each part's calls.
    """

    folder: str
    place: str = FILE_EVENT
    number: int = 0
    signal: str = "SIGKILL"
    after: float = 0.0
    counts: str | None = None

    def as_text(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))


class Watch:
    """Sees a run's file events and the calls of its parts, and kills it at the moment.

    Args:
        moment: when.
    """

    def __init__(self, moment: Moment) -> None:
        self.moment = moment
        self.events = 0
        self.seconds: dict[str, list[float]] = {name: [] for name in PARTS}
        self._process = os.getpid()  # not what it forks
        self._names = {function for _, function in PARTS.values()}
        self._began: dict[FrameType, tuple[str, float]] = {}

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """For `sys.addaudithook`: the event comes before what it is about."""
        if event != "open" and event not in CHANGES:
            return
        path = args[0] if isinstance(args[0], str) else ""
        if os.getpid() == self._process and path.startswith(self.moment.folder) and _changes(event, path, args):
            self.events += 1
            if self.moment.place == FILE_EVENT and self.events == self.moment.number:
                self._kill()

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        """For `sys.setprofile`: of the main thread."""
        if frame.f_code.co_name not in self._names or event not in ("call", "return"):
            return
        if event == "return":
            part, began = self._began.pop(frame, (None, 0.0))
            if part is not None:
                self.seconds[part].append(time.perf_counter() - began)
        elif part := _part_of(frame):
            self._began[frame] = part, time.perf_counter()
            number = len(self.seconds[part]) + sum(name == part for name, _ in self._began.values())
            if (part, number) == (self.moment.place, self.moment.number):
                threading.Timer(self.moment.after, self._kill).start()

    def _kill(self) -> None:
        os.kill(self._process, signal.Signals[self.moment.signal])


def _changes(event: str, path: str, args: tuple[Any, ...]) -> bool:
    """Whether an event changes a file, or opens one that is on its way to the disk."""
    if event != "open" or path.endswith(BESIDE_SUFFIX):
        return True
    mode, flags = args[1] or "", args[2] if isinstance(args[2], int) else 0
    return any(letter in mode for letter in "wax+") or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _part_of(frame: FrameType) -> str | None:
    name, file = frame.f_code.co_name, frame.f_code.co_filename
    return next((part for part, (where, what) in PARTS.items() if name == what and file == str(ROOT / where)), None)
