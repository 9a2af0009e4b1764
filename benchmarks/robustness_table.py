"""What the files in results/robustness say, as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Results = Mapping[str, Any]
FOLDER = "robustness"
FILES = tuple(f"{FOLDER}/{name}.json" for name in ("crash", "two_hosts", "fuzz", "soak"))


def robustness_table(crash: Results, two_hosts: Results, fuzz: Results, soak: Results) -> str:
    """A line for what was done to runs and files, with what came of it and where that was."""
    rows = [
        ["what was done", "how often", "what came of it", "file"],
        ["---"] * 4,
        *([f"killed: {place}", str(number), "", ""] for place, number in crash["summary"]["by_place"].items()),
        ["killed, in all", f"{crash['summary']['kills']} runs", _kills(crash["summary"]), _file("crash")],
        ["two hosts, their network cut in mid-run", "once", _cut(two_hosts), _file("two_hosts")],
        ["files damaged and read", f"{fuzz['summary']['inputs']:,} files", _files(fuzz["summary"]), _file("fuzz")],
        ["trained on and on", f"{soak['summary']['steps']:,} steps", _soak(soak["summary"]), _file("soak")],
    ]
    made = [file["made"] for file in (crash, two_hosts, fuzz, soak)]
    machines = sorted({f"{of['hardware']['cpu']}, torch {of['versions']['torch']}" for of in made})
    commits = ", ".join(of["commit"][:10] for of in made)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", f"{'; '.join(machines)}; commits {commits}."])


def _file(name: str) -> str:
    return f"`results/{FOLDER}/{name}.json`"


def _kills(found: Results) -> str:
    return (
        f"{found['unequal']} with other final weights than the run that nobody killed, "
        f"{found['not_ended']} that didn't end, {found['left_behind']} half-written files; "
        f"at most {found['most_steps_redone']} steps done again (checkpoints every {found['checkpoint_interval']})"
    )


def _cut(found: Results) -> str:
    same = "the same weights bit by bit" if found["equal"] else "OTHER WEIGHTS"
    return f"both ended by themselves after {found['seconds_to_the_end']:.0f} s, and had {same} once gone on with"


def _files(found: Results) -> str:
    return f"{found['refused']:,} refused in a line, {found['read']:,} read, {found['escaped']} that did anything else"


def _soak(found: Results) -> str:
    return (
        f"{found['mib_per_1000_steps']:+.2f} MiB per 1,000 steps, {found['files_least']} to {found['files_most']} open "
        f"files, {found['checkpoint_share']:.2%} of the time for checkpoints"
    )
