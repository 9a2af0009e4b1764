"""How the scripts end: in one line, for a user's mistake and when they are stopped."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rr.errors import InputError
from training.run_folder import LATEST

TARGET_MISSED = 3  # exit status of a pruning run that did all, but whose network is larger than was asked for


class Terminated(BaseException):
    """SIGTERM came; only a script's end catches this, and what is open is closed on the way."""


@dataclass
class Ending:
    """What a script that is stopped can say.

    Attributes:
        folder: of the run that it works on, None where there is none.
        interrupted: whether Ctrl-C was pressed.
    """

    folder: Path | None = None
    interrupted: bool = False

    def stopped(self) -> str:
        """The line that says how to go on."""
        if self.folder is None:
            return "stopped"
        if (self.folder / LATEST).exists():
            return f"stopped; the same command with -c continue goes on from {self.folder / LATEST}"
        return f"stopped before the first checkpoint in {self.folder}; the same command (also -c continue) starts again"


@contextmanager
def ends_in_one_line(words: Callable[[str], str] = str) -> Iterator[Ending]:
    """Turn an InputError into one line `error: ...` on stderr and exit code 2; Ctrl-C and SIGTERM into 130 and 143.

    Any other exception is a fault of the code, and keeps its traceback.

    Args:
        words: puts a message into the script's own words.

    Yields:
        What the script can say when it is stopped, for the script to fill in.
    """
    ending = Ending()

    def interrupt(number: int, frame: FrameType | None) -> None:
        ending.interrupted = True
        signal.default_int_handler(number, frame)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _terminate)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as after nohup
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield ending
    except InputError as error:
        _say("error: " + words(" ".join(str(error).split())))  # messages of libraries may have several lines
        sys.exit(2)
    except KeyboardInterrupt:
        _say(ending.stopped())
        sys.exit(128 + signal.SIGINT)
    except Exception:
        if not ending.interrupted:
            raise
        _say(ending.stopped())  # a package that was being imported may have made another error of the interrupt
        sys.exit(128 + signal.SIGINT)
    except Terminated:
        _say(ending.stopped())
        sys.exit(128 + signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(_: int, __: FrameType | None) -> None:
    raise Terminated


def _say(line: str) -> None:
    """Print to stderr; of several processes, which all say the same, only the first one prints."""
    if os.environ.get("RANK", "0") == "0":
        print(line, file=sys.stderr, flush=True)
