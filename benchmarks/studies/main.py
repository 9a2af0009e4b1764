"""A row of the main table: a pruned network against the three bars that it has to pass, and against its rivals.

    python benchmarks/studies/main.py src20-47 --data-dir DIR --bases HELD_OUT_BASES --runs RATES --rates --jobs 2
    python benchmarks/studies/main.py src20-47 --data-dir DIR --bases BASES --runs RUNS --jobs 2

Rows: src56-47, src56-35, src20-47, src20-35 (share of the MACs that is left), src20-fashion (Fashion-MNIST), vc-47, and
src56-epochs: how many epochs bar A takes.

The bars: A, the network that the runs start from ("over its start" in the table); B (base), that network trained on for
the same epochs; C (base-all), the same with all that the pruned one has. ours: `--fast` with a teacher. l1, taylor: cut
at once and fine-tuned, with that teacher as well; torch-pruning: its group norm, half of the epochs sparse,
torch-pruning-short: a quarter; scratch: a new narrow network, trained for the base's epochs as well.

With --rates every arm is trained at the same four learning rates with seed 0, and tested on 5,000 training images that
no run was trained on, the bases' neither (HELD_OUT_BASES): results/main_ROW_rates.json. The second command takes each
arm's best one from there, and opens the test images once per run. Runs of one seed are compared with each other, those
of a single seed image by image. Writes results/main_ROW.json and .png; --keep adds runs to the file.

Of src20 an epoch takes a minute or two on one core, of src56 four: all of src20-47 takes some 40 hours of a core.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run from the checkout without PYTHONPATH

from benchmarks.studies.results import at_best_rates
from benchmarks.studies.runs import ROOT
from benchmarks.studies.study import PRUNE, RIVALS, Arm, Study, run_study

HELD_OUT = 5000
TEACHER = ("--distill", "0.5")
RATES = ("0.01", "0.02", "0.05", "0.1")  # that every arm is tried at


@dataclass(frozen=True)
class Row:
    """What a row compares.

    Attributes:
        network: its name.
        base_epochs: how long the base was trained.
        epochs: how long it is trained on, or pruned.
        seeds: how many.
        target: share of the MACs that is left at most.
        dataset: the set's name.
    """

    network: str
    base_epochs: int
    epochs: tuple[int, ...]
    seeds: int
    target: float = 0.471
    dataset: str = "folder"


ROWS = {
    "src56-47": Row("src56", 240, (60,), 3),
    "src56-35": Row("src56", 240, (60,), 2, 0.35),
    "src56-epochs": Row("src56", 240, (4, 6, 8, 12), 2),
    "src20-47": Row("src20", 240, (25,), 8),
    "src20-35": Row("src20", 240, (25,), 3, 0.35),
    "src20-fashion": Row("src20", 40, (25,), 3, dataset="fashion_mnist"),
    "vc-47": Row("vc", 40, (25,), 3),
}


def arms_of(row: Row, rates: Mapping[str, float]) -> dict[str, Arm]:
    """Every way of training that the row compares, at its learning rate where that is known.

    Args:
        row: the row.
        rates: by arm.
    """
    target = ("--flops-target", f"{row.target:g}")
    arms = {
        "base": Arm(RIVALS, 0.02, ("--how", "unpruned")),
        "base-all": Arm(RIVALS, 0.02, ("--how", "unpruned", *TEACHER)),
        "ours": Arm(PRUNE, 0.02, (*target, "--fast", *TEACHER)),
    }
    if row.network.startswith("src"):  # the rivals' layers are those of the CIFAR ResNets
        sparse = ("--how", "torch-pruning", *target, *TEACHER)
        arms |= {
            "l1": Arm(RIVALS, 0.02, ("--how", "l1", *target, *TEACHER)),
            "taylor": Arm(RIVALS, 0.02, ("--how", "taylor", *target, *TEACHER)),
            "torch-pruning": Arm(RIVALS, 0.05, sparse),
            "torch-pruning-short": Arm(RIVALS, 0.05, (*sparse, "--sparse-share", "0.25")),
            "scratch": Arm(
                RIVALS,
                0.1,
                ("--how", "scratch", *target),
                starts_from_base=False,
                more_epochs=row.base_epochs,
            ),
        }
    return {name: replace(arm, lr=rates.get(name, arm.lr)) for name, arm in arms.items()}


def best_rates(file: Path) -> dict[str, float]:
    """Each arm's best learning rate in the file of a search; none of a file that isn't there."""
    if not file.is_file():
        return {}
    return {entry["arm"]: entry["lr"] for entry in at_best_rates(json.loads(file.read_text())["entries"])}


def study_of(name: str, is_search: bool) -> Study:
    """The study of a row.

    Args:
        name: the row's.
        is_search: whether it looks for learning rates, on images held out.
    """
    row, words = ROWS[name], name.replace("-", "_")
    arms = arms_of(row, {} if is_search else best_rates(ROOT / "results" / f"main_{words}_rates.json"))
    return Study(
        __doc__ or "",
        arms,
        f"main_{words}{'_rates' * is_search}.json",
        row.epochs,
        tuple(("ours", arm) for arm in arms if arm != "ours"),
        HELD_OUT * is_search,
        network=row.network,
        dataset=row.dataset,
        target=row.target,
        seeds=(0,) if is_search else tuple(range(row.seeds)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the script with these arguments (default: the command line's)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    asks_help = bool({"-h", "--help"} & set(words))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("row", choices=ROWS, nargs="?" if asks_help else None, default=next(iter(ROWS)))
    parser.add_argument("--rates", action="store_true")
    chosen, others = parser.parse_known_args(words)
    rates = ["--lr", *RATES] if chosen.rates and "--lr" not in others else []
    run_study(study_of(chosen.row, chosen.rates), [*others, *rates])


if __name__ == "__main__":
    main()
