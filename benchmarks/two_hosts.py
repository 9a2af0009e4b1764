"""A run on two hosts whose network is cut: that it ends by itself, and goes on bit by bit as if nothing had been.

    sudo python benchmarks/two_hosts.py --output results/robustness/two_hosts.json

The two hosts are network namespaces of this machine with a cable (veth) between them, and a process of the run in each.
The run is made once undisturbed. Then once more: the cable is cut in mid-run; each process has to end by itself, and to
say that the other one is gone; the cable is put back, and both are started again with `-c continue`. The final weights
must be those of the first run. Needs Linux, iproute2, and root for the namespaces; without these it says so, and does
nothing. Four minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

import torch

from base_model import build_model
from benchmarks.run_commands import ENDED, last_step, same_finals, started
from rr.errors import InputError
from rr.weights import save_hdf5
from rr.whole_files import write_text_whole
from training import World, ends_in_one_line, surroundings

CUT_AT = 30  # step, of 69
WAIT = 15  # seconds that a process waits for the other; more than the two differ by at the start
BOUND = WAIT + 45  # seconds within which both are to have ended
OPTIONS = (
    *("-a", "src8", "--dataset", "digits", "--image-size", "8", "--batch-size", "64", "--epochs", "3"),
    *("--narrow", "full", "--device", "cpu", "--checkpoint-interval", "5", "--log-interval", "1"),
    *("--process-timeout", str(WAIT)),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "robustness" / "two_hosts.json")
    options = parser.parse_args(arguments)
    with ends_in_one_line(), tempfile.TemporaryDirectory() as scratch:
        check_rights()
        made = surroundings(World(0, 0, 2, torch.device("cpu")))
        base = base_weights(Path(scratch))
        with two_hosts() as hosts:
            whole, cut = Path(scratch) / "whole", Path(scratch) / "cut"
            codes = ended(run(hosts, base, whole))
            assert set(codes) <= set(ENDED), said(whole, 0)
            disturbed = cut_off(hosts, base, cut)
        equal = same_finals(whole, cut)
        command = "sudo python benchmarks/two_hosts.py"
        found = {"command": command, "run": list(OPTIONS), **disturbed, "equal": equal, "made": made}
    write_text_whole(options.output, json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "made"}, indent=1))


def check_rights() -> None:
    """Check that namespaces can be made here.

    Raises:
        InputError: if not; nothing has been changed then.
    """
    if shutil.which("ip") is None:
        raise InputError("there is no program ip here: install iproute2 (Linux)")
    if os.geteuid() != 0:
        raise InputError("network namespaces need root: run it with sudo; nothing has been done")


class Hosts:
    """Two network namespaces with a cable between them.

    Attributes:
        names: of the namespaces.
        address: of the first one.
    """

    def __init__(self) -> None:
        self.names = [f"resrep{os.getpid()}{letter}" for letter in "ab"]
        self.address = "10.213.77.1"
        self._ends = [f"rr{os.getpid() % 10**6}{letter}" for letter in "ab"]

    def connect(self) -> None:
        """Make them."""
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self._ends[0], "type", "veth", "peer", "name", self._ends[1])
        for number, (name, end) in enumerate(zip(self.names, self._ends, strict=True), start=1):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"10.213.77.{number}/24", "dev", end)
            for device in ("lo", end):
                ip("-n", name, "link", "set", device, "up")

    def cable(self, state: str) -> None:
        """Cut the cable ('down'), or put it back ('up')."""
        ip("-n", self.names[0], "link", "set", self._ends[0], state)

    def remove(self) -> None:
        """Remove them, and with them the cable."""
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    def start(self, rank: int, words: Sequence[str], out: Path) -> subprocess.Popen:
        """A process of the run, on its host."""
        variables = {
            **{"RANK": rank, "LOCAL_RANK": 0, "WORLD_SIZE": len(self.names)},
            **{"MASTER_ADDR": self.address, "MASTER_PORT": 29500, "GLOO_SOCKET_IFNAME": self._ends[rank]},
        }
        there = [
            "ip",
            "netns",
            "exec",
            self.names[rank],
            "env",
            *(f"{name}={value}" for name, value in variables.items()),
        ]
        return started([*there, *words], out)


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Two hosts, for as long as the context lasts."""
    hosts = Hosts()
    try:
        hosts.connect()
        yield hosts
    finally:
        hosts.remove()


def ip(*words: str) -> None:
    """Call iproute2.

    Raises:
        InputError: if it can't.
    """
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"`ip {' '.join(words)}` says: {done.stderr.strip()}")


def base_weights(folder: Path) -> Path:
    """Weights to prune: as good as any here."""
    torch.manual_seed(0)
    save_hdf5(folder / "base.hdf5", build_model("src8", in_channels=1).state_dict(), {"arch": "src8"})
    return folder / "base.hdf5"


def run(hosts: Hosts, base: Path, folder: Path, *more: str) -> list[subprocess.Popen]:
    """The run's two processes."""
    words = [sys.executable, str(ROOT / "rr" / "exp_resrep.py"), *OPTIONS, "--weights", str(base)]
    words += ["--output-dir", str(folder), *more]
    return [hosts.start(rank, words, out_of(folder, rank)) for rank in range(len(hosts.names))]


def out_of(folder: Path, rank: int) -> Path:
    """Where what a process says goes."""
    return folder.with_name(f"{folder.name}.{rank}.out")


def said(folder: Path, rank: int) -> str:
    """The last line of a process."""
    lines = out_of(folder, rank).read_text().strip().splitlines()
    return lines[-1].replace(str(folder), "RUN") if lines else ""


def ended(processes: list[subprocess.Popen], within: float = 600) -> list[int | None]:
    """Exit codes; None, and it is killed, for one that hasn't ended within so many seconds."""
    until, codes = time.monotonic() + within, []
    for process in processes:
        try:
            codes.append(process.wait(max(until - time.monotonic(), 0)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            codes.append(None)
    return codes


def cut_off(hosts: Hosts, base: Path, folder: Path) -> dict[str, Any]:
    """A run that is cut in two, and goes on; what became of it."""
    processes = run(hosts, base, folder)
    while last_step(folder) < CUT_AT and all(process.poll() is None for process in processes):
        time.sleep(0.02)
    hosts.cable("down")
    began = time.monotonic()
    codes = ended(processes, BOUND)
    seconds = time.monotonic() - began
    stopped_at, words = last_step(folder), [said(folder, rank) for rank in (0, 1)]
    hosts.cable("up")
    resumed = ended(run(hosts, base, folder, "-c", "continue"))
    return {
        **{"cut_at_step": stopped_at, "process_timeout_s": WAIT, "seconds_to_the_end": round(seconds, 1)},
        **{"exit": codes, "said": words, "exit_resumed": resumed},
    }


if __name__ == "__main__":
    main()
