"""A file of weights as text: each array's shape and statistics, totals by kind, and what the file is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.weight_files import check_is_weights
from rr.compactors import MASK_SUFFIX, WEIGHT_SUFFIX
from rr.weights import WeightFile, read_pth, read_weights
from rr.weights.arrays import to_arrays
from training import logged_on_terminal

DEAD_NORM = NEAR_ZERO = 1e-5
KINDS = ("conv", "bn", "compactor", "mask", "classifier", "other")
STATISTICS = ("mean", "std", "min", "max", "positive", "negative", "zero", "near zero")
BN_NAMES = {"running_mean": "mu", "running_var": "var", "weight": "gamma", "bias": "beta"}


@logged_on_terminal()
def read(path: Path) -> tuple[WeightFile, str]:
    """The weights in a file or a checkpoint, and what that is, in words.

    Raises:
        InputError: if it is missing, broken or of another kind.
    """
    check_is_weights(path)
    payload = read_pth(path) if path.suffix == ".pth" else None
    if isinstance(payload, dict) and {"recipe", "step", "model", "optimizer"} <= payload.keys():
        file = WeightFile(to_arrays(payload["model"]), checkpoint_facts(payload), None)
        return file, f"a checkpoint of a run, which `-c continue` goes on from; its model is {file.description}"
    file = read_weights(path)
    return file, file.description


def checkpoint_facts(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says about its run."""
    recipe = payload["recipe"]
    facts = {name: recipe.get(name) for name in ("arch", "dataset", "epochs", "batch_size", "lr", "seed")}
    return {"epochs done": payload["epoch"], "steps done": payload["step"], **facts}


def describe(file: WeightFile) -> str:
    """The attributes and deps, the table of all arrays, and the totals, as lines of aligned columns."""
    head = [f"{name}: {value}" for name, value in file.attributes.items()]
    if file.deps is not None:
        head.append(f"deps ({len(file.deps)} widths): {', '.join(map(str, file.deps))}")
    header = ("name", "shape", *STATISTICS, "note")
    rows = [(name, shape_text(array), *statistics(array), note(name, array)) for name, array in file.arrays.items()]
    sections = ["\n".join(head), aligned([header, *rows], left=(0, 1, len(header) - 1))]
    sections.append(aligned(totals(file.arrays), left=(0,)))
    return "\n\n".join(section for section in sections if section)


def kind_of(name: str) -> str:
    """One of KINDS, from the names of the file format."""
    if name.endswith(WEIGHT_SUFFIX):
        return "compactor"
    if name.endswith(MASK_SUFFIX):
        return "mask"
    *_, layer, _ = ["", "", *name.split(".")]
    if layer in ("conv", "bn"):
        return layer
    return "classifier" if layer in ("fc", "linear", "linear1", "linear2") else "other"


def shape_text(array: np.ndarray) -> str:
    """`16 x 3 x 3 x 3`, or `scalar`."""
    return " x ".join(map(str, array.shape)) or "scalar"


def statistics(array: np.ndarray) -> tuple[str, ...]:
    """STATISTICS of an array; `-` for an empty one."""
    if array.size == 0:
        return ("-",) * len(STATISTICS)
    values = array.astype("float64")
    with np.errstate(invalid="ignore"):  # the spread of infinite values is none
        shown = [f"{value:.4g}" for value in (values.mean(), values.std(), values.min(), values.max())]
    counted = (values > 0, values < 0, values == 0, abs(values) <= NEAR_ZERO)
    return (*shown, *(f"{int(hits.sum()):,}" for hits in counted))


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


def totals(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, ...]]:
    """Numbers of arrays, values and bytes: of each kind, of kernels, vectors, BN's parts and biases, and of all."""
    chosen: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():
        for kind in kinds_of(name, array):
            chosen.setdefault(kind, []).append(array)
    order = (*KINDS, "kernels", "vectors", *BN_NAMES.values(), "bias")
    rows = [("kind", "arrays", "values", "bytes")]
    for kind, found in [*((kind, chosen[kind]) for kind in order if kind in chosen), ("all", list(arrays.values()))]:
        sums = (len(found), sum(array.size for array in found), sum(array.nbytes for array in found))
        rows.append((kind, *(f"{value:,}" for value in sums)))
    return rows


def kinds_of(name: str, array: np.ndarray) -> list[str]:
    """All kinds that an array counts as."""
    kinds, leaf = [kind_of(name)], name.rpartition(".")[2]
    kinds.append("kernels" if array.ndim > 1 else "vectors")
    if kinds[0] == "bn" and leaf in BN_NAMES:
        kinds.append(BN_NAMES[leaf])
    elif leaf == "bias":
        kinds.append("bias")
    return kinds


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
