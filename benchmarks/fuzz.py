"""Damaged and hostile files, by the thousand, for everything here that reads one.

    python benchmarks/fuzz.py --inputs 100000 --output results/robustness/fuzz.json

A file is a sound one with one to six edits (bits flipped, numbers at their limits, pieces cut, moved, taken from
another file), or one whose bytes are in order and whose contents aren't. Each reader must read it, or refuse it with an
InputError of one line. What counts as an escape: another exception, a process that dies, more than 20 s or 200 MiB for
a file, and changed numbers in a file with checksums without the line that says it has none. Input n of a reader is the
same on every machine; inputs are added to the file's, so it can be stopped and gone on with. 100,000 take some four
minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

import logging
import logging.handlers

import torch

from benchmarks.fuzzing import READERS, Reader, Silent
from benchmarks.fuzzing.readers import same
from rr.errors import InputError
from rr.whole_files import write_text_whole
from training import World, surroundings

SECONDS, MIB = 20, 200  # for one file
CHUNK = 500  # inputs of a reader between two writings of the result
COUNTS = ("inputs", "read", "refused", "escaped")
MOST_KEPT = 20  # escapes of a reader that are told in whole
_LINES = logging.handlers.BufferingHandler(1000)  # what was said of the file that is read


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many the file is to hold (default: 100,000)")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="NAME")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "robustness" / "fuzz.json")
    options = parser.parse_args(arguments)
    found = json.loads(options.output.read_text()) if options.output.exists() else {"readers": {}}
    made = surroundings(World(0, 0, 1, torch.device("cpu")))  # of a clean commit, which the file's changes end
    each = -(-options.inputs // len(options.readers))
    for name in options.readers:
        one = found["readers"].setdefault(name, _nothing())
        while one["inputs"] < each:
            add(one, tried(name, one["inputs"], min(CHUNK, each - one["inputs"])))
            found = {"summary": summary(found["readers"]), "made": made, "readers": found["readers"]}
            write_text_whole(options.output, json.dumps(found, indent=1) + "\n")
        print(f"{name}: " + ", ".join(f"{one[key]:,} {key}" for key in COUNTS))
    print(found.get("summary"))


def summary(readers: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Over all readers."""
    return {key: sum(one[key] for one in readers.values()) for key in COUNTS}


def add(one: dict[str, Any], more: dict[str, Any]) -> None:
    """Put the results of further inputs of a reader to those before."""
    for key in COUNTS:
        one[key] += more[key]
    one["escapes"] = (one["escapes"] + more["escapes"])[:MOST_KEPT]


def tried(name: str, first: int, number: int) -> dict[str, Any]:
    """Some inputs of a reader, in a process that is begun again behind an input that ends it."""
    context = multiprocessing.get_context("fork")
    found = _nothing()
    with tempfile.TemporaryDirectory() as folder:
        while found["inputs"] < number:
            receiver, sender = context.Pipe(duplex=False)
            at_work = context.Value("q", -1)
            begin, end = first + found["inputs"], first + number
            process = context.Process(target=_send, args=(sender, name, Path(folder), begin, end, at_work), daemon=True)
            process.start()
            sender.close()
            ended = _taken_in(found, process, receiver, at_work)
            if ended is not None:
                if at_work.value < 0:
                    raise RuntimeError(f"{name}: a sound file can't be read ({ended}; the process says why above)")
                add(found, _escape(first + found["inputs"], ended))
    return found


def _taken_in(
    found: dict[str, Any], process: multiprocessing.process.BaseProcess, receiver: Connection, at_work: Synchronized
) -> str | None:
    """Add a process's results to those found, until it ends; why it didn't come to its own end, None if it did."""
    began, last, late = time.monotonic(), -1, None
    while True:
        if receiver.poll(0.05):
            try:
                add(found, receiver.recv())
            except (EOFError, OSError):  # it has ended, perhaps in the middle of a result
                process.join()
                return late or (None if process.exitcode == 0 else f"the process ended with {process.exitcode}")
        elif at_work.value != last:
            began, last = time.monotonic(), at_work.value
        elif time.monotonic() - began > SECONDS:
            process.kill()
            late = f"not done after {SECONDS} s"


def _send(sender: Any, name: str, folder: Path, begin: int, end: int, at_work: Synchronized) -> None:
    """In the process: one input after the other, each one's result sent at once."""
    warnings.simplefilter("ignore")
    log = logging.getLogger("rr")
    log.addHandler(_LINES)
    log.propagate = False
    log.setLevel(logging.INFO)
    torch.set_num_threads(1)
    reader = READERS[name]
    (folder / "sound").mkdir(exist_ok=True)
    files = list(reader.sound(folder / "sound"))
    sound = [path.read_bytes() for path in files]
    originals = [reader.read(path) for path in files]
    for number in range(begin, end):
        at_work.value = number
        sender.send(read_damaged(reader, number, folder, sound, originals))
    at_work.value = end


def read_damaged(
    reader: Reader, number: int, folder: Path, sound: Sequence[bytes], originals: Sequence[Any]
) -> dict[str, Any]:
    """Damage a file and read it.

    Args:
        reader: of this kind of file.
        number: of the input: it alone says what is done to which file.
        folder: for the file.
        sound: the sound files' bytes.
        originals: what they hold.
    """
    draw = random.Random(f"{reader.file} {number}")
    path = folder / reader.file
    which = reader.damage(path, sound, draw)
    _LINES.buffer.clear()
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read = reader.read(path)
        is_same = not reader.checked or which is None or same(read, originals[which])
        if not is_same and not _LINES.buffer:
            raise Silent("read, and not as it was written")
    except InputError as error:
        text = str(error)
        if not text.isprintable():
            return _escape(number, f"a message that isn't one line of plain text: {text!r}")
        result = _one("refused")
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        return _escape(number, f"{type(error).__name__}: {str(error)[:200]} ({place})")
    else:
        result = _one("read")
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most) / 1024
    return _escape(number, f"{more:.0f} MiB") if more > MIB else result


def _nothing() -> dict[str, Any]:
    return {**dict.fromkeys(COUNTS, 0), "escapes": []}


def _one(outcome: str) -> dict[str, Any]:
    return {**_nothing(), "inputs": 1, outcome: 1}


def _escape(number: int, why: str) -> dict[str, Any]:
    return {**_one("escaped"), "escapes": [{"input": number, "why": why}]}


if __name__ == "__main__":
    main()
