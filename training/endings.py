"""How the scripts end: in one line, for a user's mistake and when they are stopped; in none, when nobody reads on."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rr.errors import InputError, WriteError, in_one_line
from training.roll_call import ProcessLost
from training.run_folder import checkpoints
from training.stopping import Terminated, stop_requests

TARGET_MISSED = 3  # exit status of a pruning run that did all, but whose network is larger than was asked for


@dataclass
class Ending:
    """What a script that is stopped can say.

    Attributes:
        folder: of the run that it works on, None where there is none.
    """

    folder: Path | None = None

    def stopped(self, why: str = "stopped") -> str:
        """The line that says how to go on."""
        if self.folder is None:
            return why
        if kept := checkpoints(self.folder):
            return f"{why}; the same command with -c continue goes on from {kept[0]}"
        return f"{why} before the first checkpoint in {self.folder}; the same command (also -c continue) starts again"


@contextmanager
def ends_in_one_line(words: Callable[[str], str] = str) -> Iterator[Ending]:
    """Turn an InputError into one line `error: ...` on stderr and exit code 2; Ctrl-C and SIGTERM into 130 and 143.

    A file that can't be written and a process of the run that is gone or hangs are one line, too, and exit code 1.

    Where what reads the output is gone (`| head`), the script ends without a word and with 141, as a program does that
    the signal for that (SIGPIPE) stops. Any other exception is a fault of the code, and keeps its traceback.

    Args:
        words: puts a message into the script's own words.

    Yields:
        What the script can say when it is stopped, for the script to fill in.
    """
    ending, requests = Ending(), stop_requests()
    with requests.received():
        try:
            try:
                yield ending
            finally:
                sys.stdout.flush()  # now, since at the interpreter's end nobody could catch what it raises
                requests.end()
        except InputError as error:
            _say("error: " + words(in_one_line(str(error))))
            sys.exit(2)
        except WriteError as error:
            _say("error: " + in_one_line(str(error)))
            sys.exit(1)
        except ProcessLost as error:
            _say(ending.stopped(f"error: {error}"), is_here=error.is_told_here)
            sys.exit(1)
        except BrokenPipeError:
            if not _drop_unread():
                raise
            sys.exit(128 + signal.SIGPIPE)
        except KeyboardInterrupt:
            _say(ending.stopped())
            sys.exit(128 + signal.SIGINT)
        except Terminated as stop:
            _say(ending.stopped())
            sys.exit(128 + stop.number)
        except Exception:
            if requests.number is None:
                raise
            _say(ending.stopped())  # a package that was being imported may have made another error of the interrupt
            sys.exit(128 + requests.number)


def _drop_unread() -> bool:
    """Let what goes to a pipe that nobody reads any more vanish; whether there is such a pipe."""
    look = select.poll()
    for stream in (sys.stdout, sys.stderr):
        look.register(stream.fileno(), 0)  # it always tells of errors: of a pipe, that its other end is closed
    unread = [number for number, event in look.poll(0) if event & select.POLLERR]
    with open(os.devnull, "wb") as nothing:
        for number in unread:
            os.dup2(nothing.fileno(), number)  # what is left in the stream is written at the interpreter's end
    return bool(unread)


def _say(line: str, *, is_here: bool | None = None) -> None:
    """Print to stderr; of several processes, which all say the same, the first one alone, if `is_here` isn't given."""
    if os.environ.get("RANK", "0") == "0" if is_here is None else is_here:
        print(line, file=sys.stderr, flush=True)
