"""What each setting of `--fast` does: src20 at 47% of its MACs after 4 epochs, one setting changed at a time.

    python benchmarks/studies/fast_settings.py --data-dir DIR --bases BASES --runs RUNS --seeds 0 --jobs 2

DIR, BASES and RUNS are what short_schedules.py takes, and are kept and read in the same way. A run takes about 5
minutes on one core. The loss on the test images tells settings apart better than the accuracy, in which they differ by
a few images.

Writes results/fast_settings.json and .png.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.studies.study import PRUNE, RIVALS, TARGET, Arm, Study, run_study

BEFORE = ("--fast", "--tighten-steps", "0.25")  # what --fast was before this study
LR, OTHER_LRS = 0.02, (0.01, 0.05)
CHANGES = {
    "before": (),
    "norms": ("--score", "norm"),
    "not-per-mac": ("--no-per-mac",),
    "diagonal": ("--compactors", "diagonal"),
    "no-narrowing": ("--narrow", "no"),
    "penalty-on-all": ("--penalty", "1e-4"),
    "no-proximal": ("--no-proximal",),
    "momentum-99": ("--compactor-momentum", "0.99"),
    "first-mask-later": ("--before-mask-epochs", "0.4"),
    "tighten-tenth": ("--tighten-steps", "0.1"),
    "tighten-half": ("--tighten-steps", "0.5"),
    "death-hundredth": ("--death-steps", "0.01"),
    "death-tenth": ("--death-steps", "0.1"),
    "coarse": ("--mask-interval", "0.05"),
    "width-8": ("--width-multiple", "8"),
    "width-at-least-4": ("--min-width", "4"),
    "all-layers": ("--layers", "all"),
    "warm-up": ("--warmup-epochs", "1"),
    "distill": ("--distill", "0.5"),
    "distill-most": ("--distill", "0.9"),
}
ARMS = {
    **{name: Arm(PRUNE, LR, (*TARGET, *BEFORE, *change)) for name, change in CHANGES.items()},
    **{f"lr-{lr:g}": Arm(PRUNE, lr, (*TARGET, *BEFORE)) for lr in OTHER_LRS},
    "l1": Arm(RIVALS, LR, ("--how", "l1", *TARGET)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    run_study(Study(__doc__ or "", ARMS, "fast_settings.json", (4,)), arguments)


if __name__ == "__main__":
    main()
