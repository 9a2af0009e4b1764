"""A study: several ways of training one network (its arms), each for some seeds and lengths, compared in one file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.pairs import paired_runs
from benchmarks.studies.plot import plot_arms
from benchmarks.studies.results import SIDES, Figures, entry_of, in_short, joined, lead_in_words, leads_of, read_run
from benchmarks.studies.runs import ROOT, EntryKey, Run, check_command, train_all
from rr.errors import InputError
from rr.whole_files import write_text_whole
from training import ends_in_one_line
from training.run_folder import FINISH_WEIGHTS

PRUNE, RIVALS = "rr/exp_resrep.py", "benchmarks/studies/rivals.py"
SHARE = 0.47  # of the MACs
TARGET = ("--flops-target", f"{SHARE}")
NETWORKS = ("src20", "src56", "src8")  # the last one to try a study in minutes
COMMON = (
    *("--batch-size", "128", "--schedule", "cosine", "--milestones", "--weight-decay", "5e-4"),
    *("--amp", "--channels-last"),
    *("--val-interval", "5", "--val-last", "1", "--save-interval", "0", "--checkpoint-interval", "100"),
)


@dataclass(frozen=True)
class Arm:
    """One way of training.

    Attributes:
        script: the one that trains, by its path from the repository's root.
        lr: learning rate.
        options: of the script, besides those that all arms share.
        of_epochs: options that depend on the number of epochs.
        starts_from_base: whether it gets the base's weights.
        teacher: the arm whose finished network teaches it, at that arm's own learning rate; it is trained before.
        more_epochs: how many more than the study's it has, for what its base has had.
    """

    script: str
    lr: float
    options: tuple[str, ...] = ()
    of_epochs: Callable[[int], tuple[str, ...]] = lambda epochs: ()
    starts_from_base: bool = True
    teacher: str | None = None
    more_epochs: int = 0


@dataclass(frozen=True)
class Study:
    """What a script compares.

    Attributes:
        description: the script's docstring.
        arms: by name.
        output: the file's name in results/, to which any network but the first adds its name; a plot goes beside it.
        epochs: the lengths, if the command line names none.
        rivals: pairs of arms whose difference is reported; the first one is meant to be above the second.
        hold_out: training images that are left out of training, for a study by which settings are chosen; 0: none.
        network: the only one that it is about; None where the command line says.
        dataset: the set's name.
        target: the share of the MACs that the arms' networks keep, which the file says.
        seeds: if the command line names none.
    """

    description: str
    arms: Mapping[str, Arm]
    output: str
    epochs: tuple[int, ...]
    rivals: tuple[tuple[str, str], ...] = ()
    hold_out: int = 0
    network: str | None = None
    dataset: str = "folder"
    target: float = SHARE
    seeds: tuple[int, ...] = (0, 1, 2)


def run_study(study: Study, arguments: Sequence[str] | None = None) -> None:
    """Train what isn't trained yet, then write the results of all.

    Args:
        study: what is compared.
        arguments: the command line's; None for the process's own.

    Raises:
        SystemExit: with code 1 if a run failed, 2 for a mistake on the command line.
    """
    options = parse_arguments(study, arguments)
    with ends_in_one_line():
        runs = wanted_runs(study, options)
        kept = {
            (*key_of(entry), one["seed"])
            for entry in earlier_results(study, options)["entries"]
            for one in entry["runs"]
        }
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
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    arms = list(study.arms)
    parser = argparse.ArgumentParser(
        description=study.description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with train/ and test/, a folder per class")
    parser.add_argument("--data-name", default="CIFAR-10 (JPEG copies)", help="what the figures call the data")
    parser.add_argument("--bases", type=Path, required=True, help="folder with s{seed}/finish.hdf5")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs' folders")
    first = study.network or NETWORKS[0]
    networks = (study.network,) if study.network else NETWORKS
    parser.add_argument("-a", "--arch", default=first, choices=networks, help="the network; a folder of runs each")
    parser.add_argument(
        "--output", type=Path, help=f"default: results/{study.output}, with the network's name if not {first}"
    )
    parser.add_argument("--arms", nargs="+", default=arms, choices=arms, metavar="ARM", help=", ".join(arms))
    parser.add_argument("--epochs", nargs="+", type=int, default=list(study.epochs))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(study.seeds))
    parser.add_argument("--lr", nargs="+", type=float, help="these learning rates in place of each arm's own")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes of each run: in each, BN sees only its part of a batch"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks: faster from 10 epochs on")
    parser.add_argument("--report", action="store_true", help="train nothing: write what is finished")
    parser.add_argument(
        "--keep", action="store_true", help="keep the runs that --output has and --runs hasn't, and don't train them"
    )
    parser.add_argument("--max-steps", type=int, default=0, help="for a trial: stop each run after this many steps")
    options = parser.parse_args(arguments)
    if options.output is None:
        name, of_network = Path(study.output), "" if options.arch == first else f"_{options.arch}"
        options.output = ROOT / "results" / f"{name.stem}{of_network}{name.suffix}"
    return options


# Which runs -------------------------------------------------------------------------------------------------


def wanted_runs(study: Study, options: argparse.Namespace) -> list[Run]:
    """Every requested run, seed by seed, so that all arms of one seed are done early.

    Raises:
        InputError: if a number of jobs, processes, threads or epochs is less than 1, if a run's teacher is neither
            trained nor among them, and as `run_of` does.
    """
    if min(options.jobs, options.processes, options.threads, *options.epochs) < 1:
        counts = (f"--{name} {getattr(options, name)}" for name in ("jobs", "processes", "threads", "epochs"))
        raise InputError(f"{', '.join(counts)}: give at least 1 of each")
    runs = [
        run_of(study, name, epochs, lr, seed, options)
        for epochs in options.epochs
        for seed in options.seeds
        for name in options.arms
        for lr in options.lr or [study.arms[name].lr]
    ]
    there = {run.folder for run in runs}
    for run in runs:
        if run.after is not None and run.after not in there and read_run(run.after) is None:
            raise InputError(f"{run.folder.name} is taught by {run.after.name}, which isn't trained: add it to --arms")
    return runs


def folder_of(name: str, epochs: int, lr: float, seed: int, options: argparse.Namespace) -> Path:
    """What a run writes to."""
    return options.runs / f"{name}-e{epochs}-lr{lr:g}-s{seed}"


def run_of(study: Study, name: str, epochs: int, lr: float, seed: int, options: argparse.Namespace) -> Run:
    """One run.

    Args:
        study: what is compared.
        name: the arm's name.
        epochs: how long it trains.
        lr: its learning rate.
        seed: its seed.
        options: the command line's.

    Raises:
        InputError: if the network that it starts from is missing.
    """
    arm, folder = study.arms[name], folder_of(name, epochs, lr, seed, options)
    command = [arm.script, "-a", options.arch, "--dataset", study.dataset]
    command += [*COMMON, *arm.options, *arm.of_epochs(epochs)]
    command += ["--lr", f"{lr:g}", "--epochs", str(epochs + arm.more_epochs)]
    command += ["--seed", str(seed), "--max-steps", str(options.max_steps), "--data-dir", str(options.data_dir)]
    command += ["--hold-out", str(study.hold_out)] if study.hold_out else []
    if arm.starts_from_base:
        base = options.bases / f"s{seed}" / FINISH_WEIGHTS
        if not base.is_file():
            raise InputError(f"{base} is missing: train it with train_base_model.py --seed {seed} (see --help)")
        command += ["--weights", str(base)]
    after = arm.teacher and folder_of(arm.teacher, epochs, study.arms[arm.teacher].lr, seed, options)
    command += ["--teacher", str(after / FINISH_WEIGHTS)] if after else []
    return Run(name, epochs, lr, seed, folder, (*command, "--output-dir", str(folder)), after)


# The results -----------------------------------------------------------------------------------------------


def write_results(study: Study, runs: Sequence[Run], options: argparse.Namespace) -> None:
    """Write the file and the plot beside it, and print a table: of the finished runs and the entries that are kept."""
    groups: dict[EntryKey, dict[int, Path]] = {}
    for run in runs:
        if read_run(run.folder) is not None:
            groups.setdefault(run.entry, {})[run.seed] = run.folder
    found = {
        (epochs, arm, lr): {"arm": arm, "epochs": epochs, "lr": lr, **entry_of(folders)}
        for (epochs, arm, lr), folders in groups.items()
    }
    earlier = earlier_results(study, options)
    for entry in earlier["entries"]:
        found[key_of(entry)] = joined(found[key_of(entry)], entry) if key_of(entry) in found else entry
    if not found:
        return
    place = {arm: index for index, arm in enumerate(study.arms)}
    entries = [found[key] for key in sorted(found, key=lambda key: (key[0], place.get(key[1], len(place)), key[2]))]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    leads = with_pairs(leads_of(entries, study.rivals), groups, earlier.get("leads", []), study, options)
    results = {**heading(study, options), "leads": leads, "entries": entries}
    write_text_whole(options.output, json.dumps(results, indent=1) + "\n")
    plot_arms(results, options.output.with_suffix(".png"))
    print("\n".join([in_short(entries), *map(lead_in_words, leads)]))


def with_pairs(
    leads: Sequence[Figures],
    groups: Mapping[EntryKey, Mapping[int, Path]],
    earlier: Sequence[Figures],
    study: Study,
    options: argparse.Namespace,
) -> list[Figures]:
    """The leads, where those of one seed also say how their networks compare image by image (`paired`).

    Args:
        leads: as `leads_of` gives them.
        groups: the folders of finished runs, by entry and seed.
        earlier: leads of the file as it was; their `paired` is kept where a folder is gone.
        study: has the data set, and says which images they are compared on.
        options: the command line's.
    """
    known = {identity(lead): lead["paired"] for lead in earlier if "paired" in lead}
    pairs: dict[int, tuple[Path, Path]] = {}
    for place, lead in enumerate(leads):
        if lead["spread"] is None:
            keys = [(lead["epochs"], lead[side], lead[f"{side}_lr"]) for side in reversed(SIDES)]
            rival, arm = (groups.get(key, {}).get(lead["seeds"][0]) for key in keys)
            if rival is not None and arm is not None:
                pairs[place] = rival, arm
    measured = paired_runs(options.arch, study.dataset, options.data_dir, list(pairs.values()), study.hold_out)
    found = {place: paired.to_dict() for place, paired in zip(pairs, measured, strict=True)}
    found = {**{place: known[identity(lead)] for place, lead in enumerate(leads) if identity(lead) in known}, **found}
    return [{**lead, "paired": found[place]} if place in found else lead for place, lead in enumerate(leads)]


def identity(lead: Figures) -> tuple[object, ...]:
    """What is the same in the leads of two files if they are of the same runs."""
    names = ("epochs", "arm", "rival", "arm_lr", "rival_lr")
    return *(lead.get(name) for name in names), tuple(lead.get("seeds", ())), lead["points"]["mean"]


def earlier_results(study: Study, options: argparse.Namespace) -> Figures:
    """With --keep, what the output file has.

    Raises:
        InputError: if that is of another network, data or target.
    """
    if not (options.keep and options.output.is_file()):
        return {"leads": [], "entries": []}
    results = json.loads(options.output.read_text())
    for name, ours in heading(study, options).items():
        if results[name] != ours:
            raise InputError(f"{options.output} is of {name} {results[name]}, not {ours}: give --keep another --output")
    return results


def heading(study: Study, options: argparse.Namespace) -> Figures:
    """What all entries of a file share."""
    return {"network": options.arch, "data": options.data_name, "target": study.target}


def key_of(entry: Figures) -> EntryKey:
    """The key of an entry of a file."""
    return entry["epochs"], entry["arm"], entry["lr"]
