"""What narrowing in mid-run does to the accuracy of src20, pruned with the settings for short runs.

    python benchmarks/studies/narrowing_accuracy.py --data-dir DIR --bases BASES --runs RUNS --jobs 2

DIR, BASES and RUNS are what short_schedules.py takes, and are kept and read in the same way. Runs of one seed start
from the same network and see the same batches. A run of 12 epochs takes about 15 minutes on one core.

no: all channels and compactors stay to the end; rows: dead channels leave, compactors stay; full: compactors are folded
as well, all at once when nothing more is to die; penalty: full, but masked rows shrink by their penalty's gradient, as
in the paper, in place of a proximal step. Rows are ranked by how much the loss would change without them, not per MAC,
so that no layer is left with next to nothing.

Writes results/narrowing_accuracy.json and .png.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.studies.study import PRUNE, TARGET, Arm, Study, run_study

LR = 0.02
SHORT = (*TARGET, "--fast", "--no-per-mac", "--tighten-steps", "0.25")

ARMS = {
    **{how: Arm(PRUNE, LR, (*SHORT, "--narrow", how)) for how in ("no", "rows", "full")},
    "penalty": Arm(PRUNE, LR, (*SHORT, "--narrow", "full", "--no-proximal")),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    run_study(Study(__doc__ or "", ARMS, "narrowing_accuracy.json", (12,)), arguments)


if __name__ == "__main__":
    main()
