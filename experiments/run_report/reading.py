"""What a run's folder tells: its settings, its epochs, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.row_norms import decoded
from rr.errors import InputError
from training.json_files import read_json, read_lines
from training.run_folder import CONVERTED, CONVERTED_WEIGHTS, FINISH_WEIGHTS, METRICS, RESULT, RUN, stored_result

WEIGHTS = (FINISH_WEIGHTS, CONVERTED_WEIGHTS, str(Path(CONVERTED_WEIGHTS).with_suffix(".pth")), *CONVERTED)


RowNorms = tuple[Sequence[int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class RunFiles:
    """One run's files, as far as they are there.

    Attributes:
        name: the folder, as it was given.
        run: run.json.
        epochs: the lines of metrics.jsonl.
        result: result.json; empty for a base network, or a run that isn't done.
        files: bytes of each file of weights that the run ended with, by name.
        row_norms: steps, and by layer the base-10 logarithms of its rows' norms, [rows, steps]: infinite as `decoded`
            says. No steps in an older run, or without a pruner.
    """

    name: str
    run: dict[str, Any]
    epochs: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    row_norms: RowNorms = ((), {})

    def curve(self, *keys: str) -> tuple[list[float], list[float]]:
        """Epochs, and a value of each that has it: `curve("val", "top1")`."""
        found = []
        for record in self.epochs:
            value: Any = record
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                found.append((record["epoch"], value))
        return [epoch for epoch, _ in found], [value for _, value in found]

    @property
    def width_names(self) -> list[str]:
        """Layers' widths among an epoch's scalars, by name; none before the first epoch, or without a pruner."""
        scalars = self.epochs[-1].get("scalars", {}) if self.epochs else {}
        return [name for name in scalars if name.startswith("width/")]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """The conversion's report by layer; none where nothing was converted."""
        return self.result.get("conversion", {}).get("layers", [])

    @property
    def milliseconds(self) -> dict[str, list[float | None]]:
        """Each layer's, before and after; none where a run was too short to be timed."""
        return self.result.get("times", {}).get("layers", {})

    @property
    def commands(self) -> list[str]:
        """What was typed, first to begin the run and then to go on with it; none in an older run's file."""
        parts = [self.run, *self.run.get("resumed", [])]
        return [part["command"] for part in parts if isinstance(part.get("command"), str)]


def read_run(folder: str | Path) -> RunFiles:
    """Read what is there; a line that a kill has torn is left out.

    Raises:
        InputError: where the folder holds no run, or a file of it is broken.
    """
    folder = Path(folder)
    if not (folder / RUN).is_file():
        raise InputError(f"{folder} holds no run ({RUN} is missing): give a folder that a script has trained in")
    run, epochs = read_json(folder / RUN), read_lines(folder / METRICS)
    result = stored_result(folder)
    for name, is_right in (
        (RUN, _is_run(run)),
        (METRICS, all(map(_is_epoch, epochs)) and (row_norms := _row_norms_of(epochs)) is not None),
        (RESULT, _is_conversion(result.get("conversion", {})) and _has_times(result)),
    ):
        if not is_right:
            raise InputError(f"{folder / name} doesn't hold what a run writes: bring it back from a copy")
    files = {name: (folder / name).stat().st_size for name in WEIGHTS if (folder / name).is_file()}
    return RunFiles(str(folder), run, epochs, result, files, row_norms)


def _is_run(run: dict[str, Any]) -> bool:
    resumed = run.get("resumed", [])
    are_parts = isinstance(resumed, list) and all(isinstance(part, dict) for part in resumed)
    return are_parts and isinstance(run.get("recipe"), dict)


def _has_times(result: dict[str, Any]) -> bool:
    """Whether the times by layer are two numbers each, the second one perhaps none; or there are no times."""
    times = result.get("times", {})
    layers = times.get("layers", {}) if isinstance(times, dict) else None
    if not isinstance(layers, dict) or (
        layers and not all(_is_number(times.get(name)) for name in ("images", "threads"))
    ):
        return False
    return all(
        isinstance(pair, list) and len(pair) == 2 and _is_number(pair[0]) and (pair[1] is None or _is_number(pair[1]))
        for pair in layers.values()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_epoch(record: dict[str, Any]) -> bool:
    return type(record.get("epoch")) is int and isinstance(record.get("scalars", {}), dict)


def _row_norms_of(epochs: list[dict[str, Any]]) -> RowNorms | None:
    """What the epochs' lines have of each row; None where that isn't as many rows of the same layers at all steps."""
    try:
        records = {
            int(step): {name: decoded(text) for name, text in norms.items()}
            for epoch in epochs
            for step, norms in epoch.get("row_norms", {}).items()
        }
    except (AttributeError, TypeError, ValueError):  # no table of tables of texts, or no base64
        return None
    steps = sorted(records)
    counts = [{name: len(rows) for name, rows in records[step].items()} for step in steps]
    if any(count != counts[0] for count in counts):
        return None
    names = records[steps[0]] if steps else ()
    return steps, {name: np.stack([records[step][name] for step in steps], axis=1) for name in names}


def _is_conversion(report: Any) -> bool:
    layers = report.get("layers", []) if isinstance(report, dict) else None
    return isinstance(layers, list) and all(isinstance(layer, dict) for layer in layers)
