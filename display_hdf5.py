"""What is in a file of weights or a checkpoint: each array's shape and statistics, totals by kind, what the file is.

    python display_hdf5.py src56_train/finish.hdf5
    python display_hdf5.py src56_train/latest.pth        # .pth, .pt and .safetensors as well

Near zero is at most 1e-5 in size, zeros included. For a network in training with compactors it also says how many rows
of each are dead (norm below 1e-5) and how many rows each mask keeps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rr.errors import InputError, printable
from training.endings import ends_in_one_line
from training.options import OptionParser


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the file and print it."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("file", type=Path, help="a file of weights: .hdf5, .pth, .pt, .safetensors; or a checkpoint")
    with ends_in_one_line():
        path = parser.parse_args(sys.argv[1:] if arguments is None else arguments).file
        if not path.exists():
            raise InputError(f"there is no file {path}")
        # torch takes seconds to import, which --help and a wrong name needn't wait for.
        from experiments.weight_table import describe, read

        file, what = read(path)
        print(printable(f"{path}: {what}\n\n{describe(file)}"))


if __name__ == "__main__":
    main()
