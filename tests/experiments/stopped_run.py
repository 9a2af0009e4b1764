"""python -m tests.experiments.stopped_run SIGNAL WORDS SCRIPT OPTIONS: runs a script, and stops it on the way.

One that a launcher has started again goes through.
"""

from __future__ import annotations

import logging
import os
import sys

from tests import scripts
from training.run_folder import is_started_again


class StopsAt(logging.Handler):
    """Sends this process a signal at the first line of the log with these words, before anything that follows it."""

    def __init__(self, signal_number: int, words: str) -> None:
        super().__init__()
        self.signal_number, self.words = signal_number, words

    def emit(self, record: logging.LogRecord) -> None:
        if self.words in record.getMessage():
            logging.getLogger().removeHandler(self)
            os.kill(os.getpid(), self.signal_number)


if __name__ == "__main__":
    if not is_started_again():
        logging.getLogger().addHandler(StopsAt(int(sys.argv[1]), sys.argv[2]))
    scripts.load(sys.argv[3]).main(sys.argv[4:])
