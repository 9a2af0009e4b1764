"""A study: several ways of training one network (its arms), each for some seeds and lengths, compared in one file.

Each run is a process with a folder of its own. Killed ones go on where they were, finished ones are only read, one that
another call is at work on is left to that.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.pairs import paired_runs
from benchmarks.studies.plot import plot_arms
from benchmarks.studies.results import SIDES, Figures, entry_of, in_short, joined, lead_in_words, leads_of, read_run
from training import exit_on_bad_input
from training.log import write_whole
from training.run_folder import FINISH_WEIGHTS

ROOT = Path(__file__).resolve().parents[2]
PRUNE, RIVALS = "rr/exp_resrep.py", "benchmarks/studies/rivals.py"
TARGET = ("--flops-target", "0.47")
NETWORKS = ("src20", "src56")
DATASET = "folder"
COMMON = (
    *("--dataset", DATASET, "--batch-size", "128", "--schedule", "cosine", "--milestones"),
    *("--weight-decay", "5e-4", "--amp", "--channels-last"),
    *("--val-interval", "5", "--val-last", "1", "--save-interval", "0", "--checkpoint-interval", "100"),
)

EntryKey = tuple[int, str, float]  # epochs, arm, learning rate: what tells an entry of the file from the others


@dataclass(frozen=True)
class Arm:
    """A way: which script, with which learning rate and options, and those that hang on the number of epochs."""

    script: str
    lr: float
    options: tuple[str, ...] = ()
    of_epochs: Callable[[int], tuple[str, ...]] = lambda epochs: ()
    starts_from_base: bool = True


@dataclass(frozen=True)
class Study:
    """description: the script's docstring; output: the file's name in results/, which gets the network's name unless it
    is the first one, a plot goes beside it; rivals: pairs of arms, the first of which is to be above the second."""

    description: str
    arms: Mapping[str, Arm]
    output: str
    epochs: tuple[int, ...]
    rivals: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Run:
    """One arm with one seed: its name, the folder with that name, and the command that trains it."""

    arm: str
    epochs: int
    lr: float
    seed: int
    folder: Path
    command: tuple[str, ...]

    @property
    def output(self) -> Path:
        """What its process writes; the file is locked while the process is at work."""
        return self.folder.with_suffix(f"{self.folder.suffix}.out")

    @property
    def entry(self) -> EntryKey:
        """The entry of the file that it is part of."""
        return self.epochs, self.arm, self.lr


def run_study(study: Study, arguments: Sequence[str] | None = None) -> None:
    """Train what isn't trained yet, then write what all of it came to; exit code 1 where a run failed."""
    options = parse_arguments(study, arguments)
    with exit_on_bad_input():
        runs = wanted_runs(study.arms, options)
        kept = {(*key_of(entry), one["seed"]) for entry in earlier_results(options)["entries"] for one in entry["runs"]}
        for run in runs:
            check_command(run)
        waiting = [run for run in runs if read_run(run.folder) is None and (*run.entry, run.seed) not in kept]
        complete = options.report or train_all(
            waiting, options.jobs, options.processes, options.threads, ["--compile"] * options.compile
        )
        write_results(study, runs, options)
    if not complete:
        sys.exit(1)


def parse_arguments(study: Study, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Exits with 2 for what it doesn't know."""
    arms = list(study.arms)
    parser = argparse.ArgumentParser(
        description=study.description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with train/ and test/, a folder per class")
    parser.add_argument("--data-name", default="CIFAR-10 (JPEG copies)", help="what the figures call the data")
    parser.add_argument("--bases", type=Path, required=True, help="folder with s{seed}/finish.hdf5")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs' folders")
    parser.add_argument(
        "-a", "--arch", default=NETWORKS[0], choices=NETWORKS, help="the network; a folder of runs each"
    )
    parser.add_argument(
        "--output", type=Path, help=f"default: results/{study.output}, with the network's name if not {NETWORKS[0]}"
    )
    parser.add_argument("--arms", nargs="+", default=arms, choices=arms, metavar="ARM", help=", ".join(arms))
    parser.add_argument("--epochs", nargs="+", type=int, default=list(study.epochs))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--lr", nargs="+", type=float, help="these learning rates in place of each arm's own")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes of each run: each has its part of a batch, and BN sees that"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks: faster from 10 epochs on")
    parser.add_argument("--report", action="store_true", help="train nothing: write what is finished of all that")
    parser.add_argument(
        "--keep", action="store_true", help="keep the runs that --output has and --runs hasn't, and don't train them"
    )
    parser.add_argument("--max-steps", type=int, default=0, help="for a trial: stop each run after so many steps")
    options = parser.parse_args(arguments)
    if options.output is None:
        name, of_network = Path(study.output), "" if options.arch == NETWORKS[0] else f"_{options.arch}"
        options.output = ROOT / "results" / f"{name.stem}{of_network}{name.suffix}"
    return options


# Which runs -------------------------------------------------------------------------------------------------


def wanted_runs(arms: Mapping[str, Arm], options: argparse.Namespace) -> list[Run]:
    """Every run that is asked for, seed by seed, so that all arms of one seed are done early."""
    if min(options.jobs, options.processes, options.threads, *options.epochs) < 1:
        counts = (f"--{name} {getattr(options, name)}" for name in ("jobs", "processes", "threads", "epochs"))
        raise ValueError(f"{', '.join(counts)}: give at least 1 of each")
    return [
        run_of(name, arms[name], epochs, lr, seed, options)
        for epochs in options.epochs
        for seed in options.seeds
        for name in options.arms
        for lr in options.lr or [arms[name].lr]
    ]


def run_of(name: str, arm: Arm, epochs: int, lr: float, seed: int, options: argparse.Namespace) -> Run:
    """One run; ValueError where the network that it starts from is missing."""
    folder = options.runs / f"{name}-e{epochs}-lr{lr:g}-s{seed}"
    command = [arm.script, "-a", options.arch, *COMMON, *arm.options, *arm.of_epochs(epochs)]
    command += ["--lr", f"{lr:g}", "--epochs", str(epochs)]
    command += ["--seed", str(seed), "--max-steps", str(options.max_steps), "--data-dir", str(options.data_dir)]
    if arm.starts_from_base:
        base = options.bases / f"s{seed}" / FINISH_WEIGHTS
        if not base.is_file():
            raise ValueError(f"{base} is missing: train it with train_base_model.py --seed {seed} (see --help)")
        command += ["--weights", str(base)]
    return Run(name, epochs, lr, seed, folder, (*command, "--output-dir", str(folder)))


def check_command(run: Run) -> None:
    """Raise ValueError where the folder holds, or waits for, a run of other options; else note these beside it."""
    note = run.folder.with_suffix(f"{run.folder.suffix}.command.json")
    if run.folder.exists() and note.exists() and json.loads(note.read_text()) != list(run.command):
        raise ValueError(
            f"{run.folder} was begun with other options (see {note.name}): move both away, or undo the change"
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    write_whole(note, json.dumps(run.command) + "\n")


# Training them ----------------------------------------------------------------------------------------------


def train_all(runs: Sequence[Run], jobs: int, processes: int, threads: int, extra: Sequence[str]) -> bool:
    """Train the runs, `jobs` at a time, in so many processes each; False where one failed or is another's.

    extra: options for each of them that don't make it another run.

    When this process is stopped, so are they; the next call goes on with them.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    waiting, complete = list(reversed(runs)), True
    running: dict[Run, subprocess.Popen] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop()
                process = start(run, processes, threads, extra)
                if process is None:
                    print(f"{run.folder.name}: another process is at work on it", flush=True)
                    complete = False
                else:
                    running[run] = process
            time.sleep(0.2)
            for run, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[run]
                figures = read_run(run.folder)
                if process.returncode == 0 and figures is not None:
                    print(f"{run.folder.name}: top-1 {figures['top1']:.2f}%", flush=True)
                else:
                    complete = False
                    last = run.output.read_text().strip().splitlines()[-1:]
                    print(f"{run.folder.name}: FAILED ({process.returncode}): {' '.join(last)}", flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        signal.signal(signal.SIGTERM, before)
    return complete


def start(run: Run, processes: int, threads: int, extra: Sequence[str]) -> subprocess.Popen | None:
    """Begin or go on with a run; None where another process holds it.

    The process inherits the locked file, so the lock lasts as long as it does, also if this one is killed.
    """
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))
    with open(run.output, "a") as output:
        try:
            fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        script, *options = run.command
        return subprocess.Popen(
            [
                *("nice", "-n", "5", sys.executable, *(torchrun if processes > 1 else ())),
                *(str(ROOT / script), *options, *extra, "-c", "continue"),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )


# What came of it --------------------------------------------------------------------------------------------


def write_results(study: Study, runs: Sequence[Run], options: argparse.Namespace) -> None:
    """The file, the plot beside it and a table, of the runs that are finished and the entries that are kept."""
    groups: dict[EntryKey, dict[int, Path]] = {}
    for run in runs:
        if read_run(run.folder) is not None:
            groups.setdefault(run.entry, {})[run.seed] = run.folder
    found = {
        (epochs, arm, lr): {"arm": arm, "epochs": epochs, "lr": lr, **entry_of(folders)}
        for (epochs, arm, lr), folders in groups.items()
    }
    earlier = earlier_results(options)
    for entry in earlier["entries"]:
        found[key_of(entry)] = joined(found[key_of(entry)], entry) if key_of(entry) in found else entry
    if not found:
        return
    place = {arm: index for index, arm in enumerate(study.arms)}
    entries = [found[key] for key in sorted(found, key=lambda key: (key[0], place.get(key[1], len(place)), key[2]))]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    leads = with_pairs(leads_of(entries, study.rivals), groups, earlier.get("leads", []), options)
    results = {**heading(options), "leads": leads, "entries": entries}
    write_whole(options.output, json.dumps(results, indent=1) + "\n")
    plot_arms(results, options.output.with_suffix(".png"))
    print("\n".join([in_short(entries), *map(lead_in_words, leads)]))


def with_pairs(
    leads: Sequence[Figures],
    groups: Mapping[EntryKey, Mapping[int, Path]],
    earlier: Sequence[Figures],
    options: argparse.Namespace,
) -> list[Figures]:
    """The leads, those of one seed compared image by image (`paired`): now, or before where a folder is gone."""
    known = {identity(lead): lead["paired"] for lead in earlier if "paired" in lead}
    pairs: dict[int, tuple[Path, Path]] = {}
    for place, lead in enumerate(leads):
        if lead["spread"] is None:
            keys = [(lead["epochs"], lead[side], lead[f"{side}_lr"]) for side in reversed(SIDES)]
            rival, arm = (groups.get(key, {}).get(lead["seeds"][0]) for key in keys)
            if rival is not None and arm is not None:
                pairs[place] = rival, arm
    measured = paired_runs(options.arch, DATASET, options.data_dir, list(pairs.values()))
    found = {place: paired.to_dict() for place, paired in zip(pairs, measured, strict=True)}
    found = {**{place: known[identity(lead)] for place, lead in enumerate(leads) if identity(lead) in known}, **found}
    return [{**lead, "paired": found[place]} if place in found else lead for place, lead in enumerate(leads)]


def identity(lead: Figures) -> tuple[object, ...]:
    """What tells that two files' leads are of the same runs."""
    names = ("epochs", "arm", "rival", "arm_lr", "rival_lr")
    return *(lead.get(name) for name in names), tuple(lead.get("seeds", ())), lead["points"]["mean"]


def earlier_results(options: argparse.Namespace) -> Figures:
    """With --keep, what the output file has; ValueError where that is of another network, data or target."""
    if not (options.keep and options.output.is_file()):
        return {"leads": [], "entries": []}
    results = json.loads(options.output.read_text())
    for name, ours in heading(options).items():
        if results[name] != ours:
            raise ValueError(f"{options.output} is of {name} {results[name]}, not {ours}: give --keep another --output")
    return results


def heading(options: argparse.Namespace) -> Figures:
    """What all entries of a file share."""
    return {"network": options.arch, "data": options.data_name, "target": float(TARGET[1])}


def key_of(entry: Figures) -> EntryKey:
    """The key of an entry as it stands in a file."""
    return entry["epochs"], entry["arm"], entry["lr"]
