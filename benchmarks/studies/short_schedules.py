"""Which way of getting src20 (or src56) to 47% of its MACs keeps most accuracy in a given number of epochs.

    for s in 0 1 2; do python train_base_model.py -a src20 --dataset folder --data-dir DIR --epochs 40 --amp \\
        --batch-size 128 --schedule cosine --milestones --weight-decay 5e-4 --seed $s --output-dir BASES/s$s; done
    python benchmarks/studies/short_schedules.py --data-dir DIR --bases BASES --runs RUNS --jobs 2

Each arm but `scratch` starts, for each seed, from BASES/s{seed}/finish.hdf5, and trains for the same epochs on the
same batches: 128 images, a cosine, bfloat16 autocast. DIR holds train/ and test/ with a folder of images per class. An
epoch of CIFAR-10 takes src20 one to two minutes on one core, so an arm of 12 epochs is done in about 20 minutes.

base: the unpruned network, trained further; resrep: the paper's rule, scaled to the length; fast: this project's
settings for short runs; fast-diagonal: the same with diagonal compactors; l1, scratch, torch-pruning: see rivals.py;
*-distill: the unpruned network teaches; *-distill-part: it does so for 65% of the run.

Each run is a process with a folder of its own in RUNS. Killed ones go on where they were, finished ones are only read;
a run that another call of this script is training is left alone. Writes results/short_schedules.json and .png from all
requested runs that are finished; with --keep, the file keeps those that it has already. --lr tries other learning rates
than an arm's own; give it an --output of its own.
With `-a src56 --epochs 60 --seeds 0 --bases results/bases/src56` (a base trained as above, by two processes on JPEG
copies of CIFAR-10) and runs in another folder: results/short_schedules_src56.json; on one core an epoch of src56 takes
about four minutes. `fast-distill-part` was trained with --processes 2, the others with --threads 2.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.studies.study import PRUNE, RIVALS, TARGET, Arm, Study, run_study

DISTILL = ("--distill", "0.5", "--temperature", "4")
LEAVES = ("--distill-until", "0.65")
FAST = ("--fast",)


def paper_options(epochs: int) -> tuple[str, ...]:
    """The paper's rule for a run of `epochs` of 391 steps, in proportion to one of 25 that reaches the target."""
    return (
        *(
            "--no-fast",
            "--penalty",
            f"{0.0125 / epochs:g}",
            "--mask-interval",
            f"{2 * epochs}",
            "--begin-granularity",
            "4",
        ),
        *("--before-mask-epochs", f"{0.08 * epochs:g}", "--threshold", "1e-4"),
    )


ARMS = {
    "base": Arm(RIVALS, 0.02, ("--how", "unpruned")),
    "resrep": Arm(PRUNE, 0.02, TARGET, paper_options),
    "fast": Arm(PRUNE, 0.02, (*TARGET, *FAST)),
    "fast-diagonal": Arm(PRUNE, 0.02, (*TARGET, *FAST, "--compactors", "diagonal")),
    "fast-distill": Arm(PRUNE, 0.02, (*TARGET, *FAST, *DISTILL)),
    "fast-distill-part": Arm(PRUNE, 0.02, (*TARGET, *FAST, *DISTILL, *LEAVES)),
    "l1": Arm(RIVALS, 0.05, ("--how", "l1", *TARGET)),
    "l1-distill": Arm(RIVALS, 0.02, ("--how", "l1", *TARGET, *DISTILL)),
    "torch-pruning": Arm(
        RIVALS,
        0.05,
        (*("--how", "torch-pruning", *TARGET), *("--sparse-share", "0.5", "--sparse-lr", "0.01")),
        lambda epochs: ("--sparse-penalty", "5e-4"),
    ),
    "scratch": Arm(RIVALS, 0.1, ("--how", "scratch", *TARGET), starts_from_base=False),
}


RIVALS_OF_OURS = (
    *(("fast", rival) for rival in ("l1", "resrep", "torch-pruning", "scratch", "base")),
    ("fast-diagonal", "fast"),
    *(("fast-distill", rival) for rival in ("l1-distill", "base")),
    *(("fast-distill-part", rival) for rival in ("fast-distill", "base")),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    run_study(Study(__doc__ or "", ARMS, "short_schedules.json", (12, 25), RIVALS_OF_OURS), arguments)


if __name__ == "__main__":
    main()
