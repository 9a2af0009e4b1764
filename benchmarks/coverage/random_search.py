"""Random networks for a given time: each is traced, half dies at random, is converted, compared, loaded again.

    python benchmarks/coverage/random_search.py --minutes 30     # one process; add --seed 1 for a second one beside it

Runs tests/rr/conversion/test_random_networks.py with more and more seeds (its networks are of every kind of operation
that has a rule), and writes results/random_networks.json: how many networks passed, what was met in them, and the first
failure, as pytest shows it, if there is one. A failure is a bug: it ends the search with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from rr.whole_files import write_text_whole
from training import init_world, surroundings

ROOT = Path(__file__).resolve().parents[2]
TEST = "tests/rr/conversion/test_random_networks.py"
EACH = 100  # networks in a run of the test
_PHASE = re.compile(r"(\d+) passing(?: examples)?, (\d+) failing")
_EVENT = re.compile(r"\* ([\d.]+)%, (.+)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Search until the time is over, or something fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=30, help="how long to search (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the next ones have seed + 1000, ...")
    parser.add_argument("--output", type=Path, default=Path("results/random_networks.json"))
    options = parser.parse_args(arguments)
    began, seed = monotonic(), options.seed
    found: dict[str, Any] = {**surroundings(init_world("cpu")), "test": TEST, "seeds": [], "networks": 0}
    events: Counter[str] = Counter()
    while monotonic() - began < 60 * options.minutes and "failure" not in found:
        code, text = run_of(seed)
        passed, counted = counts(text)
        events.update(counted)
        found["seeds"].append(seed)
        found["networks"] += passed
        found["minutes"] = round((monotonic() - began) / 60, 1)
        found["events"] = dict(events.most_common())
        if code:
            found["failure"] = text[-8000:]
        write_text_whole(options.output, json.dumps(found, indent=1) + "\n")
        print(f"{found['minutes']} minutes, {found['networks']} networks passed", flush=True)
        seed += 1000
    if "failure" in found:
        print(f"seed {found['seeds'][-1]} fails: {options.output} has what pytest shows", flush=True)
        sys.exit(1)


def run_of(seed: int) -> tuple[int, str]:
    """Run the test once, in a process of its own: its exit status, and all that it prints."""
    options = ["-q", f"--hypothesis-seed={seed}", "--hypothesis-show-statistics", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", TEST, *options],
        cwd=ROOT,
        env={**os.environ, "RESREP_EXAMPLES": str(EACH)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def counts(text: str) -> tuple[int, Counter[str]]:
    """How many networks passed, and in about how many of them each event was met, by Hypothesis's own statistics."""
    passed, events = 0, Counter()
    for line in text.splitlines():
        if phase := _PHASE.search(line):
            passed += int(phase[1])
        elif event := _EVENT.search(line):
            events[event[2].strip()] += round(float(event[1]) / 100 * EACH)
    return passed, events


if __name__ == "__main__":
    main()
