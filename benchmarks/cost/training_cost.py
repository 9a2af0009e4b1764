"""What a pruning run costs against plain training of the unpruned network, its dead channels taken out as they die.

    python benchmarks/cost/training_cost.py          # src20 and src56; estimated at 5 minutes on 2 free cores
    python benchmarks/cost/training_cost.py --precision float32
    python benchmarks/cost/training_cost.py --compactors diagonal
    python benchmarks/cost/training_cost.py --models torchvision/resnet50 torchvision/mobilenet_v2
    python benchmarks/cost/training_cost.py --again  # what the file has is measured once more

Writes results/training_cost.json and, from what is in it, results/training_cost.png; what the file has isn't measured
again. Nothing else may run meanwhile. At ten points from full width to the target (47% of the MACs, resnet50
45.5%), units of the layers that the method prunes are masked in a random order, set to zero and taken out. At each,
whole training steps on random images, in channels-last format, are timed in turn: the unpruned network's (plain), with
compactors at full width (no narrowing), narrowed (rows), with compactors folded in mid-run and retired at the target
(full), and those of a plain network of the same widths, BNs included, the floor (narrow plain). The ratios give what a
run costs that reaches its target at a third or at a tenth of its steps, including mask updates and narrowings.
Peak memory is that of a process per variant, and a profile says which operations take the time at the target.

Bars: a step without narrowing at most 1.10x the plain step; with narrow="full", a step at the target at most 1.03x the
floor, a run that reaches its target at a third of its steps at most 0.90x the plain run, at a tenth 0.82x.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.cost.training_figures import FULL, FULL_WIDTH, VARIANTS, Figures
from benchmarks.cost.training_plot import plot_costs
from benchmarks.cost.training_steps import Setting, measure, peak_memory
from benchmarks.processes import in_processes
from rr.whole_files import write_text_whole
from training import ends_in_one_line, init_world, surroundings

MEMORY_LIMIT_S = 600


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the file lacks; each network is on disk as soon as it is done."""
    options = parse_arguments(arguments)
    entries = json.loads(options.output.read_text())["entries"] if options.output.exists() else {}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with ends_in_one_line():
        settings = [setting_of(name, options) for name in options.models]
        torch.set_num_threads(options.threads)
        around = surroundings(init_world("cpu"))  # of a clean commit, which the file's changes end
        for setting in settings:
            key = f"{setting.model} {setting.precision}"
            if setting.compactors != "dense":
                key += f", {setting.compactors} compactors"
            if setting.threads != 1:
                key += f", {setting.threads} threads"
            if key in entries and not options.again:
                print(f"{key}: is in {options.output} already (--again measures it once more)", flush=True)
                continue
            memory = in_processes(peak_memory, VARIANTS, (setting,), 1, MEMORY_LIMIT_S)
            entries[key] = {**measure(setting), "memory": dict(memory), **around}
            write_text_whole(options.output, json.dumps({"entries": entries}, indent=1) + "\n")
            print(f"{key}: {in_short(entries[key])}", flush=True)
    plot_costs(entries, options.output.with_suffix(".png"))


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's options.

    Raises:
        SystemExit: with code 2, for an option or a value that it doesn't know.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/training_cost.json"), help="the plot goes beside it"
    )
    parser.add_argument(
        "--models", nargs="+", default=["src20", "src56"], metavar="NAME", help="ours, torchvision/NAME"
    )
    parser.add_argument("--again", action="store_true", help="measure them even where the file has them")
    parser.add_argument(
        "--precision", choices=("bfloat16", "float32"), default="bfloat16", help="bfloat16: autocast (default)"
    )
    parser.add_argument("--compactors", choices=("dense", "diagonal"), default="dense", help="default: dense")
    parser.add_argument("--batch", type=int, help="images in a step; default: 64, for ImageNet's networks 8")
    parser.add_argument("--image-size", type=int, help="pixels; default: 32, for ImageNet's networks 224")
    parser.add_argument("--width-multiple", type=int, default=8, help="what the widths are multiples of")
    parser.add_argument("--points", type=int, default=10, help="of the schedule, including full width and target")
    parser.add_argument(
        "--rounds", type=int, default=10, help="timed steps of each variant at each point (3 times that at the target)"
    )
    parser.add_argument("--warmup", type=int, default=2, help="steps of each before those")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1, as in a process for each core)")
    return parser.parse_args(arguments)


def setting_of(name: str, options: argparse.Namespace) -> Setting:
    """How one network is measured, from the command line."""
    for_imagenet = "/" in name or name.startswith("sres")
    return Setting(
        model=name,
        precision=options.precision,
        compactors=options.compactors,
        batch=options.batch or (8 if for_imagenet else 64),
        image_size=options.image_size or (224 if for_imagenet else 32),
        width_multiple=options.width_multiple,
        points=options.points,
        rounds=options.rounds,
        warmup=options.warmup,
        threads=options.threads,
    )


def in_short(figures: Figures) -> str:
    """A line about one network."""
    runs = figures["whole_run"][FULL]
    whole = ", ".join(f"{ratio:.3f} with the target at {name}" for name, ratio in runs.items())
    missed = [bar for bar, passed in figures["bars"].items() if not passed]
    return (
        f"{FULL_WIDTH} {figures['no_narrowing']['median']:.3f}; whole run {whole}; "
        f"narrowed step {figures['over_floor'][FULL]['median']:.3f} of the floor; "
        + (f"MISSED: {', '.join(missed)}" if missed else "all bars passed")
    )


if __name__ == "__main__":
    main()
