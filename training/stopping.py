"""Signals that ask a run to stop: at once, or, while it trains, at the end of a step, with a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SOON = 0.01  # seconds: when a request that was lost is made again
TOGETHER = 1.0  # seconds: a terminal and a launcher both pass a request on, so it can come twice


class Terminated(BaseException):
    """A signal came; only a script's end catches this, and what is open is closed on the way.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class StopRequests:
    """What signals have asked for. A script has one (`stop_requests`), which its end listens with.

    Attributes:
        number: the first signal that came; None where none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._is_held_back = False
        self._is_over = False
        self._is_lost = False

    @contextmanager
    def received(self) -> Iterator[None]:
        """Within the context, SIGTERM and SIGINT are requests; none that came before counts."""
        self.number, self._is_over, self._is_lost = None, False, False
        before, hook = {}, sys.unraisablehook

        def unraisable(found: sys.UnraisableHookArgs) -> None:
            if not self._is_made_again(found.exc_value):
                hook(found)

        sys.unraisablehook = unraisable
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                # one that is ignored stays so, as SIGINT after nohup
                if number == signal.SIGTERM or signal.getsignal(number) is signal.default_int_handler:
                    before[number] = signal.signal(number, self._come)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            sys.unraisablehook = hook

    def listen_to(self, name: str) -> None:
        """Another signal is a request too, for the rest of the process: a name without SIG."""
        signal.signal(signal.Signals[f"SIG{name}"], self._come)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Within the context, a request only takes note of itself; a second one, a second later, stops at once."""
        self._is_held_back = True
        try:
            yield
        finally:
            self._is_held_back = False
        if self.number is not None:  # it came after the last look
            self.leave()

    def end(self) -> None:
        """From now on none is heard: the script is ending, and what it says last is to be said."""
        self._is_over = True

    def leave(self) -> None:
        """Raise what the request would have raised.

        Raises:
            KeyboardInterrupt: for SIGINT.
            Terminated: for any other signal; SIGTERM where this process has had none.
        """
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(self.number or signal.SIGTERM)

    def _come(self, number: int, _: FrameType | None) -> None:
        if self._is_over:
            return
        now = time.monotonic()
        is_first = self.number is None
        if is_first:
            self.number, self._since = number, now
        if self._is_lost:
            self._is_lost = False
            self.leave()
        if (is_first and not self._is_held_back) or now - self._since >= TOGETHER:
            self.leave()

    def _is_made_again(self, error: BaseException | None) -> bool:
        """Whether an error is a request that came where Python can raise nothing (in a `__del__`, a callback)."""
        if self.number is None or not isinstance(error, KeyboardInterrupt | Terminated):
            return False
        self._is_lost = True
        again = threading.Timer(SOON, os.kill, (os.getpid(), self.number))
        again.daemon = True
        again.start()
        return True


_REQUESTS = StopRequests()


def stop_requests() -> StopRequests:
    """Those of this process: signals are the process's."""
    return _REQUESTS
