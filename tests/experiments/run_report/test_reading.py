"""A run's text files, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.row_norms import encoded
from experiments.run_report.reading import read_run
from rr.errors import InputError
from training.run_folder import METRICS, RESULT, RUN

RECIPE = {"recipe": {"arch": "src8"}}
EPOCH = {"epoch": 3, "val": {"top1": 50.0}, "scalars": {"width/a": 2}}


def written(folder: Path, run: Any = RECIPE, metrics: str = "", result: Any = None) -> Path:
    (folder / RUN).write_text(json.dumps(run))
    (folder / METRICS).write_text(metrics)
    if result is not None:
        (folder / RESULT).write_text(json.dumps(result))
    return folder


def test_a_line_that_a_kill_has_torn_is_left_out(tmp_path: Path) -> None:
    line = json.dumps(EPOCH)
    run = read_run(written(tmp_path, metrics=f"{line}\n{line[:20]}"))
    assert run.curve("val", "top1") == ([3], [50.0])
    assert run.width_names == ["width/a"]
    assert run.layers == []


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"run": {"recipe": None}}, RUN),
        ({"metrics": '{"epoch": null}\n'}, METRICS),
        ({"metrics": '{"epoch": 1, "scalars": 2}\n'}, METRICS),
        ({"metrics": '{"epoch": 1, "row_norms": {"0": {"a": 1}}}\n'}, METRICS),
        ({"metrics": '{"epoch": 1, "row_norms": {"0": {"a": "?"}}}\n'}, METRICS),
        ({"metrics": '{"epoch": 1, "row_norms": {"first": {"a": "AQ=="}}}\n'}, METRICS),
        ({"metrics": '{"epoch": 1, "row_norms": {"0": {"a": "AQ=="}, "1": {"a": "AQE="}}}\n'}, METRICS),
        ({"metrics": '{"epoch": 1, "row_norms": {"0": {"a": "AQ=="}, "1": {"b": "AQ=="}}}\n'}, METRICS),
        ({"result": {"conversion": 1}}, RESULT),
        ({"result": {"conversion": {"layers": [1]}}}, RESULT),
        ({"run": {**RECIPE, "resumed": 3}}, RUN),
        ({"run": {**RECIPE, "resumed": ["again"]}}, RUN),
        ({"result": {"times": 1}}, RESULT),
        ({"result": {"times": {"layers": {"a": [1.0, None]}}}}, RESULT),  # of how many images?
        ({"result": {"times": {"images": 1, "threads": 1, "layers": {"a": [None, 1.0]}}}}, RESULT),
        ({"result": {"times": {"images": 1, "threads": 1, "layers": {"a": "no"}}}}, RESULT),
    ],
)
def test_what_no_run_writes_is_named(files: dict[str, Any], name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{name} doesn't hold what a run writes"):
        read_run(written(tmp_path, **files))


def test_rows_are_told_by_step(tmp_path: Path) -> None:
    norms = ([1.0, 0.01, 1e-9], [2.0, 0.0, np.inf])
    lines = [
        json.dumps({"epoch": i, "row_norms": {str(9 * i): {"a": encoded(np.array(of))}}}) for i, of in enumerate(norms)
    ]
    steps, rows = read_run(written(tmp_path, metrics="\n".join([*lines, json.dumps(EPOCH)]) + "\n")).row_norms
    assert steps == [0, 9]
    assert rows["a"] == pytest.approx(np.array([[0, np.log10(2)], [-2, -np.inf], [-8, np.inf]]), abs=0.021)


def test_a_number_of_too_many_digits_is_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is broken"):
        read_run(written(tmp_path, metrics=f'{{"epoch": {"9" * 5000}}}\n'))
