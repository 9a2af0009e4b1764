"""The page itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from experiments.run_report.reading import RunFiles, read_run
from rr.errors import InputError, printable
from rr.whole_files import write_text_whole, written_whole
from training.run_folder import PLOTS, REPORT

TEMPLATE = "report.html.j2"
FORGETTING = "forgetting"  # the name of that figure's own file
COMPARISON = "comparison.html"  # a page of several runs, which leaves the first one's own


def write_report(folders: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the report on runs, side by side where there are several; one run's figures go into its `plots/` as well.

    Args:
        folders: of the runs, one or more.
        output: the file to write; None: report.html in the folder, or comparison.html in the first one of several.

    Returns:
        The file.

    Raises:
        InputError: where a folder holds no run, or matplotlib or Jinja2 is missing.
    """
    try:
        import jinja2

        from experiments.run_report import figures
    except ModuleNotFoundError as error:
        raise InputError(f'a report needs {error.name}: pip install "resrep[report]"') from None
    runs = [read_run(folder) for folder in folders]
    files = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=files, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["literal"] = printable
    forgetting = [(run.name, picture) for run in runs if (picture := figures.forgetting(run))]
    panels = [
        (panel, figures.Picture(partial(figures.draw_panel, panel=panel, runs=runs), 2.6, "panel"))
        for panel in figures.PANELS
        if figures.has_curve(panel, runs)
    ]
    page = environment.get_template(TEMPLATE).render(
        runs=runs,
        panels=[(panel.title, picture.uris) for panel, picture in panels],
        colours=list(zip(figures.colours(runs, "light"), figures.colours(runs, "dark"), strict=True)),
        forgetting=[(name, picture.uris) for name, picture in forgetting],
        recipes=[(run.name, json.dumps(run.run.get("recipe", {}), indent=2)) for run in runs],
        summary=[_summary(run) for run in runs],
    )
    path = Path(output) if output is not None else Path(folders[0]) / (REPORT if len(runs) == 1 else COMPARISON)
    write_text_whole(path, page)
    if len(runs) == 1:
        named = {panel.name: picture for panel, picture in panels}
        named.update((FORGETTING, picture) for _, picture in forgetting)
        for name, picture in named.items():
            with written_whole(path.parent / PLOTS / f"{name}.png") as temporary:
                temporary.write_bytes(picture.pngs["light"])
    return path


def _summary(run: RunFiles) -> dict[str, Any]:
    found = run.result.get("conversion", {})
    accuracies = run.curve("val", "top1")[1]
    return {
        "name": run.name,
        "first": run.result.get("base", {}).get("top1", accuracies[0] if accuracies else None),
        "last": run.result.get("converted", {}).get("top1", accuracies[-1] if accuracies else None),
        "macs": (found["macs_before"], found["macs_after"]) if found else None,
        "parameters": (found["parameters_before"], found["parameters_after"]) if found else None,
        "proof": (found["float64_difference"], found["cut_difference"]) if found else None,
        "proven_at": found.get("proven_at", []),
        "one_way_branches": found.get("one_way_branches", []),
    }
