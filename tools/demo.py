"""The main job on data that ships with scikit-learn: train src20 on digits, prune it with ResRep, test, compare.

    python tools/demo.py            # or `make demo`, which sets up .venv first

Keeps at most 47.1% of the MACs at the base network's accuracy (within half a point). 3 to 6 minutes on 2 cores, under
2 GiB. Everything is in demo_run/: base/, pruned/ and result.json; a stopped demo goes on where it was.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMON = ["-a", "src20", "--dataset", "digits", "--batch-size", "32", "--log-interval", "45"]
BASE = ["--epochs", "20", "--lr", "0.05", "--schedule", "cosine", "--milestones"]
PRUNE = [
    *("--no-fast", "--epochs", "40", "--lr", "0.05", "--penalty", "1e-3", "--flops-target", "0.471"),
    *("--before-mask-epochs", "2", "--mask-interval", "10", "--begin-granularity", "4", "--save-interval", "0"),
    *("--threshold", "1e-4"),  # in 1,800 steps dead rows settle at about 1e-5; living ones are over 1e-2
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo; exits with the code of the step that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo_run"), help="where it writes (default: demo_run)")
    folder = parser.parse_args(arguments).folder
    base, pruned, result = folder / "base", folder / "pruned", folder / "result.json"
    base_weights, pruned_weights = base / "finish.hdf5", pruned / "finish_converted.hdf5"

    run("train_base_model.py", *COMMON, *BASE, "--output-dir", base, *goes_on(base))
    run("rr/exp_resrep.py", *COMMON, *PRUNE, "--base-weights", base_weights, "--output-dir", pruned, *goes_on(pruned))
    run("tools/evaluate.py", "-a", "src20", pruned_weights, "--against", base_weights, "--output", result)
    print(f"\npruned network: {pruned_weights} (and .pth); all figures: {result}")


def goes_on(folder: Path) -> list[str]:
    """Go on with what an earlier demo left unfinished."""
    return ["-c", "continue"] if (folder / "latest.pth").exists() else []


def run(script: str, *options: object) -> None:
    """Run one of the project's scripts as a person would, and show the command."""
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    print("\n$ python", script, *command[2:], flush=True)
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
