"""What brings a pruned src20 nearer to its base trained on: changes of `--fast`, one at a time, on images held out.

    python train_base_model.py -a src20 --dataset folder --data-dir DIR --hold-out 5000 --epochs 60 --amp \\
        --batch-size 128 --schedule cosine --milestones --weight-decay 5e-4 --output-dir BASES/s0
    python benchmarks/studies/gap.py --data-dir DIR --bases BASES --runs RUNS --jobs 2

DIR is what short_schedules.py takes. 5,000 of its training images are left out of every run's training, the base's too,
and all accuracies are of them: settings are chosen here, and the test images aren't opened. Runs of one seed see the
same batches, so their differences are taken seed by seed; all seeds may start from one base (link BASES/s1 and BASES/s2
to s0). results/bases/src20_hold_out is one. A run of 12 epochs takes about 15 minutes on one core.

fast: `--fast`; base: the unpruned network trained on; later-N: the target is met after N% of the run, at a higher rate
after an epoch of warm-up, and high-rate the same without waiting; floor-N: each layer keeps N% of its width;
floor-or-none: 25%, or its block goes; multiples-8: widths in multiples of 8; refit: cut at once and refitted;
streams: residual streams too; by-image: scores of each image's gradient, not of the batch's; smoothing: of the labels;
cutout: squares of 8 pixels; average: the mean of the last fifth's weights; distill: the base teaches; distill-later:
both; distill-outputs: what its stages return as well, to 65% of the run; distill-trained: the base trained on teaches,
distill-average: the mean of its last fifth's weights; base-*: the unpruned network with the same. A
difference within its own 95% interval is none.

Writes results/gap.json and .png.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.studies.study import PRUNE, RIVALS, TARGET, Arm, Study, run_study

LR, HIGH_LR = 0.02, 0.1
HIGH_RATE = ("--warmup-epochs", "1")
DISTILL = ("--distill", "0.5")
FOR_BOTH = {  # what a base has as well, so that bar C is one with all of it
    "smoothing": ("--label-smoothing", "0.1"),
    "cutout": ("--cutout", "8"),
    "average": ("--average-last", "20%"),
    "distill": DISTILL,
}
LATER = {share: (*HIGH_RATE, "--tighten-steps", f"{share}%") for share in (20, 30, 40)}


def pruned(*change: str, lr: float = LR) -> Arm:
    """`--fast` with a change."""
    return Arm(PRUNE, lr, (*TARGET, "--fast", *change))


def unpruned(*change: str) -> Arm:
    """The network trained on, with a change."""
    return Arm(RIVALS, LR, ("--how", "unpruned", *change))


ARMS = {
    "base": unpruned(),
    "fast": pruned(),
    "high-rate": pruned(*HIGH_RATE, lr=HIGH_LR),
    **{f"later-{share}": pruned(*later, lr=HIGH_LR) for share, later in LATER.items()},
    **{f"floor-{share}": pruned("--min-width-share", f"{share}%") for share in (25, 30)},
    "floor-or-none": pruned("--min-width", "0", "--min-width-share", "25%"),
    "multiples-8": pruned("--width-multiple", "8"),
    "refit": pruned("--start", "refit"),
    "streams": pruned("--layers", "all"),
    "by-image": pruned("--by-image"),
    **{name: pruned(*change) for name, change in FOR_BOTH.items()},
    **{f"base-{name}": unpruned(*change) for name, change in FOR_BOTH.items()},
    "distill-outputs": pruned(*DISTILL, "--distill-until", "65%", "--distill-outputs", "stage1", "stage2", "stage3"),
    "distill-later": pruned(*DISTILL, *LATER[30], lr=HIGH_LR),
    "distill-trained": replace(pruned(*DISTILL), teacher="base"),
    "distill-average": replace(pruned(*DISTILL), teacher="base-average"),
}
DISTILLED = ("distill-later", "distill-outputs", "distill-trained", "distill-average")
AGAINST = {**dict.fromkeys(DISTILLED, "distill"), **{f"base-{name}": "base" for name in FOR_BOTH}}
RIVALS_OF_OURS = (
    *((arm, AGAINST.get(arm, "fast")) for arm in ARMS if arm != "fast"),
    *((name, f"base-{name}") for name in FOR_BOTH),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    run_study(Study(__doc__ or "", ARMS, "gap.json", (12,), RIVALS_OF_OURS, hold_out=5000), arguments)


if __name__ == "__main__":
    main()
