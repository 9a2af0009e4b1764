"""What is in a weight file: each array's shape and statistics, totals by kind, and what the file is.

    python display_hdf5.py src56_train/finish.hdf5

While training with compactors it also says how many rows of each are dead (norm below 1e-5) and how many
rows each mask keeps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rr.compactors import WEIGHT_SUFFIX
from rr.weights import WeightFile, read_hdf5
from training.bad_input import exit_on_bad_input

DEAD_NORM = 1e-5
WHAT = {
    "base": "a base model (no compactors)",
    "training": "a model in training (with compactors)",
    "converted": "a converted model (folded and narrow)",
}
KINDS = ("conv", "bn", "compactor", "mask", "classifier", "other")


def main() -> None:
    """Read the file and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="an HDF5 file of weights")
    path = parser.parse_args().file
    file = read_hdf5(path)
    print(f"{path}: {WHAT[file.kind]}\n\n{describe(file)}")


def describe(file: WeightFile) -> str:
    """Attributes and deps, the table of all arrays and the totals, as lines of aligned columns."""
    head = [f"{name}: {value}" for name, value in file.attributes.items()]
    if file.deps is not None:
        head.append(f"deps ({len(file.deps)} widths): {', '.join(map(str, file.deps))}")
    header = ("name", "shape", "mean", "std", "min", "max", "note")
    rows = [(name, shape_text(array), *statistics(array), note(name, array)) for name, array in file.arrays.items()]
    sections = ["\n".join(head), aligned([header, *rows], left=(0, 1, 6)), aligned(totals(file.arrays), left=(0,))]
    return "\n\n".join(section for section in sections if section)


def kind_of(name: str) -> str:
    """One of KINDS, from the names of the file format."""
    if name.endswith(WEIGHT_SUFFIX):
        return "compactor"
    if name.endswith(".compactor.mask"):
        return "mask"
    *_, layer, _ = ["", "", *name.split(".")]
    if layer in ("conv", "bn"):
        return layer
    return "classifier" if layer in ("fc", "linear", "linear1", "linear2") else "other"


def shape_text(array: np.ndarray) -> str:
    """`16 x 3 x 3 x 3`, or `scalar`."""
    return " x ".join(map(str, array.shape)) or "scalar"


def statistics(array: np.ndarray) -> tuple[str, str, str, str]:
    """Mean, standard deviation, least and largest value; `-` for an empty array."""
    if array.size == 0:
        return ("-",) * 4
    values = array.astype(np.float64)
    return tuple(f"{value:.4g}" for value in (values.mean(), values.std(), values.min(), values.max()))


def note(name: str, array: np.ndarray) -> str:
    """Dead rows of a compactor, ones of a mask, and values that aren't finite."""
    notes = []
    if kind_of(name) == "compactor":
        norms = np.linalg.norm(array.astype(np.float64).reshape(len(array), -1), axis=1)
        notes.append(f"{np.count_nonzero(norms < DEAD_NORM)} of {len(norms)} rows dead (norm < {DEAD_NORM:.0e})")
    elif kind_of(name) == "mask":
        notes.append(f"{np.count_nonzero(array == 1)} of {array.size} ones")
    if bad := np.count_nonzero(~np.isfinite(array)):
        notes.append(f"{bad} values not finite")
    return ", ".join(notes)


def totals(arrays: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Arrays, values and bytes of each kind that there is, and of all, under a header."""
    rows = [("kind", "arrays", "values", "bytes")]
    for kind in (*KINDS, "all"):
        chosen = [array for name, array in arrays.items() if kind in (kind_of(name), "all")]
        if chosen or kind == "all":
            sums = (len(chosen), sum(array.size for array in chosen), sum(array.nbytes for array in chosen))
            rows.append((kind, *(f"{value:,}" for value in sums)))
    return rows


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Rows of cells as lines of columns, flush right except for the columns in `left`."""
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(size) if index in left else cell.rjust(size)
            for index, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
