"""How far the channel graph reaches: networks traced, half of their channels killed, converted, compared, used.

    python benchmarks/coverage/run.py --jobs 2                          # all networks whose packages are there
    python benchmarks/coverage/run.py --family detection dense other    # only these families; classifiers is the fourth
    python benchmarks/coverage/run.py --again timm/resnet18             # once more, although it is in the file
    python benchmarks/coverage/run.py --plot-only                       # nothing but the plot, from the file
    python benchmarks/coverage/run.py --trace-again NAME                # after a measurement on a busy machine

Writes results/coverage.json and results/coverage_seconds.png; then run tools/results_table.py. networks.py has the
lists. Beside timm, some need packages that aren't in the requirements files (ultralytics is under the AGPL): what is
left out for want of one is said, with the command. `pip install --no-deps` keeps them from changing torch:

    pip install --no-deps ultralytics segmentation-models-pytorch monai pytorchcv torchaudio opencv-python-headless

For each network: units, layers, share of the MACs that can go, seconds to trace and plan, and the proof: compactors
are random matrices (0.5 I + noise), BN statistics and affine parameters random (negative gammas and betas among them),
a random half of the prunable units is dead. The converted network is compared in float64 and float32, each output on
its own scale, at two input sizes and two batch sizes, converted again, trained for a step with a loss of its kind and
exported; then masks chosen at random take half of the MACs, over all prunable units. figures.py has the bars.

Each network has a process of its own, so one that the machine kills for its memory is a failure of that network alone;
with several jobs, the largest networks come at the end, one by one.
Networks that the file has are not examined again, so a stopped run can go on. With --jobs 2 on 2 free cores: estimated
at 45 minutes for the classifiers.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.coverage.examination import examine, trace_cost
from benchmarks.coverage.figures import bars, was_run
from benchmarks.coverage.networks import FAMILY_NAMES, PACKAGES, missing_packages
from benchmarks.coverage.networks import names as family_names
from benchmarks.coverage.plot import plot_seconds
from benchmarks.processes import in_processes
from rr.errors import InputError
from rr.whole_files import write_text_whole
from training import init_world, surroundings

SHARE_OF_MEMORY = 0.7  # of the machine's, for all networks that are examined at a time
SLOW_TO_IMPORT = ("torch._dynamo", "torch.export", "torchvision")  # several seconds, of networks that take one or two
Results = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine what the file lacks, or what is to be done again; each result is on disk as soon as it is known."""
    parser = option_parser()
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {options.jobs}")
    results = json.loads(options.output.read_text()) if options.output.exists() else {"models": {}}
    try:
        if options.trace_again:
            trace_again(options, results)
        elif not options.plot_only:
            examine_all(options, results)
    except InputError as error:
        parser.error(str(error))
    plot_seconds(results["models"], options.output.with_name(f"{options.output.stem}_seconds.png"))


def option_parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", type=Path, default=Path("results/coverage.json"), help="the plot goes beside it")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument(
        "--family",
        nargs="+",
        choices=FAMILY_NAMES,
        default=FAMILY_NAMES,
        help="only the networks of these families (default: all)",
    )
    chosen.add_argument("--models", nargs="+", metavar="NAME", help="only these: of the lists, or a classifier")
    chosen.add_argument("--again", nargs="+", metavar="NAME", help="only these, even where the file has them")
    chosen.add_argument(
        "--trace-again", nargs="+", metavar="NAME", help="measure again what tracing takes, for these alone"
    )
    chosen.add_argument("--plot-only", action="store_true", help="examine nothing")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time; they share the cores")
    parser.add_argument(
        "--most-parameters",
        type=int,
        default=700_000_000,
        help="networks with more are only traced (default: 700 million; in float64, 24 GiB hold no copy of more)",
    )
    parser.add_argument("--minutes-each", type=float, default=15, help="a network that takes longer counts as failed")
    return parser


def trace_again(options: argparse.Namespace, results: Results) -> None:
    """Measure what tracing takes of networks that `results` has, and write the file after each.

    Raises:
        InputError: for a network that it hasn't.
    """
    unknown = [name for name in options.trace_again if name not in results["models"]]
    if unknown:
        raise InputError(f"{options.output} has no {', '.join(unknown)}: examine it first, with --models")
    for name, figures in in_processes(trace_cost, options.trace_again, (), 1, 60 * options.minutes_each):
        if "failed" not in figures:
            results["models"][name] |= figures
        write_text_whole(options.output, json.dumps(results, indent=1) + "\n")
        print(f"{name}: {figures}", flush=True)


def examine_all(options: argparse.Namespace, results: Results) -> None:
    """Examine the chosen networks, add them to `results`, and write the file after each.

    Raises:
        InputError: if a network that was asked for by name needs a package that isn't here.
    """
    asked = options.again or options.models
    names = asked or [name for family in options.family for name in family_names(family)]
    for package, without in missing_packages(names).items():
        how = f"need the package {package}: `pip install {package}`"
        if asked:
            raise InputError(f"{', '.join(without)} {how}, or choose others")
        print(f"left out: {len(without)} networks that {how}", flush=True)
        names = [name for name in names if name not in without]
    todo = names if options.again else missing(names, results)
    threads = max(1, torch.get_num_threads() // options.jobs)
    results |= made_by(options.jobs, threads)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    done = examined(todo, options.jobs, threads, options.most_parameters, 60 * options.minutes_each)
    for position, (name, figures) in enumerate(done, start=1):
        results["models"][name] = {**figures, "commit": results["commit"], "cpu": results["hardware"]["cpu"]}
        write_text_whole(options.output, json.dumps(results, indent=1) + "\n")
        print(f"[{position}/{len(todo)}] {name}: {in_short(figures)}", flush=True)


def missing(names: Sequence[str], results: Results) -> list[str]:
    """The networks that the file doesn't have yet."""
    return [name for name in names if name not in results["models"]]


def made_by(jobs: int, threads: int) -> Results:
    """When and on what this measures: time, versions, commit, hardware."""
    around = surroundings(init_world("cpu"))
    around["versions"] |= {
        package: importlib.metadata.version(package)
        for module, package in (("torchvision", "torchvision"), *PACKAGES.values())
        if importlib.util.find_spec(module)
    }
    return {**around, "jobs": jobs, "threads": threads}


def examined(
    names: Sequence[str], jobs: int, threads: int, most_parameters: int, limit_s: float
) -> Iterator[tuple[str, Results]]:
    """The figures of each network; those that need much memory come at the end, one by one.

    Args:
        names: of the networks.
        jobs: how many at a time.
        threads: torch's, for each.
        most_parameters: networks with more are only traced.
        limit_s: seconds after which a network counts as failed.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most_bytes = SHARE_OF_MEMORY * memory / jobs if jobs > 1 else math.inf
    large = []
    each = (threads, most_parameters, most_bytes)
    for name, figures in in_processes(on_threads, names, each, jobs, limit_s, SLOW_TO_IMPORT):
        if "postponed" in figures:
            large.append(name)
        else:
            yield name, figures
    each = (threads, most_parameters, math.inf)
    yield from in_processes(on_threads, large, each, 1, limit_s, SLOW_TO_IMPORT)


def on_threads(name: str, threads: int, most_parameters: int, most_bytes: float) -> Results:
    """`examine` in a fresh process, with its share of the cores."""
    torch.set_num_threads(threads)
    return examine(name, most_parameters, most_bytes)


def in_short(figures: Results) -> str:
    """A line about one network."""
    if "failed" in figures:
        return f"FAILED: {figures['failed']}"
    share = f"{figures['share_of_macs_that_can_go']:.1%} of the MACs can go, {figures['seconds']:.0f} s"
    if not was_run(figures):
        return f"{share}; {figures['not_run']}"
    missed = [bar for bar, passed in bars(figures).items() if not passed]
    return f"{share}, " + (f"MISSED: {', '.join(missed)}" if missed else "all bars passed")


if __name__ == "__main__":
    main()
