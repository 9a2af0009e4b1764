"""The main job on data that ships with scikit-learn: train src20 on digits, prune it with ResRep, test, compare.

    python tools/demo.py            # or `make demo`, which sets up .venv first

Keeps at most 47.1% of the MACs at the base network's accuracy (within half a point). 3 to 6 minutes on 2 cores, under
2 GiB. Everything is in demo_run/: base/, pruned/ and result.json; a stopped demo goes on where it was.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from training.options import OptionParser

COMMON = ["-a", "src20", "--dataset", "digits", "--batch-size", "32", "--log-interval", "45"]
BASE = ["--epochs", "20", "--lr", "0.05", "--schedule", "cosine", "--milestones"]
PRUNE = [
    *("--no-fast", "--epochs", "40", "--lr", "0.05", "--penalty", "1e-3", "--flops-target", "0.471"),
    *("--before-mask-epochs", "2", "--mask-interval", "10", "--begin-granularity", "4", "--save-interval", "0"),
    *("--threshold", "1e-4"),  # in 1,800 steps dead rows settle at about 1e-5; living ones are over 1e-2
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo; exits with the code of the step that failed."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo_run"), help="where it writes (default: demo_run)")
    folder = parser.parse_args(sys.argv[1:] if arguments is None else arguments).folder
    base, pruned, result = folder / "base", folder / "pruned", folder / "result.json"
    base_weights, pruned_weights = base / "finish.hdf5", pruned / "finish_converted.hdf5"

    say("1 of 3: train src20, a ResNet of 20 layers, on 1,438 images of handwritten digits (1 to 2 minutes)")
    run("train_base_model.py", *COMMON, *BASE, "--output-dir", base, *goes_on(base))
    say("2 of 3: train on with compactors until channels are dead, then fold it into a narrow network (2 to 4 minutes)")
    run("rr/exp_resrep.py", *COMMON, *PRUNE, "--weights", base_weights, "--output-dir", pruned, *goes_on(pruned))
    say("3 of 3: test both on the 359 images that neither was trained on, and time them (seconds)")
    run("tools/evaluate.py", pruned_weights, "--against", base_weights, "--output", result)
    say(
        f"done. The pruned network: {pruned_weights} (and .pth). All figures: {result}\n"
        f"curves of both runs: tensorboard --logdir {folder}; what is in a file: python display_hdf5.py FILE\n"
        "next: prune a network of your own, README.md, 'Your own network and images'"
    )


def say(text: str) -> None:
    """Print what comes next, so that it stands out between the stages' own lines."""
    print(f"\n=== {text}", flush=True)


def goes_on(folder: Path) -> list[str]:
    """The options to go on with what an earlier demo left unfinished."""
    return ["-c", "continue"] if (folder / "latest.pth").exists() else []


def run(script: str, *options: object) -> None:
    """Run one of the project's scripts as a user would, and show the command.

    Raises:
        SystemExit: with the script's exit code, if that isn't 0.
    """
    command = [sys.executable, str(ROOT / script), *map(str, options)]
    print("$ python", script, *command[2:], flush=True)
    code = subprocess.run(command).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
