"""Write the README's result table from the run files under results/, so that no figure in it is typed.

python tools/results_table.py            # rewrites the part of README.md between its two markers
python tools/results_table.py --check    # exit code 1 where the README isn't what the files say
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: begin (tools/results_table.py) -->", "<!-- results: end -->"
HEAD = ["network, data", "epochs", "top-1 before", "top-1 after", "MACs kept", "parameters kept", "faster at batch 64"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite or check the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit code 1 where the table is out of date"
    )
    options = parser.parse_args(arguments)
    readme = ROOT / "README.md"
    text = readme.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    fresh = f"{head}{BEGIN}\n{table(ROOT / 'results')}\n{END}{tail}"
    if options.check:
        sys.exit(fresh != text)
    readme.write_text(fresh)


def table(folder: Path) -> str:
    """The Markdown table of every comparison in the folder's JSON files, with notes on what measured them."""
    files = {path: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    found = {path: result for path, result in files.items() if "comparison" in result}
    rows = [HEAD, ["---"] * len(HEAD), *(row(result) for result in found.values())]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    notes = [note(path, result) for path, result in found.items()]
    return "\n".join([*lines, "", *notes, *coverage(folder / "coverage.json")])


def coverage(path: Path) -> list[str]:
    """A line on how many classifiers convert exactly, from what benchmarks/coverage.py wrote."""
    if not path.is_file():
        return []
    models = json.loads(path.read_text())["models"]
    run = {name: figures for name, figures in models.items() if "not_run" not in figures}
    good = {name: figures for name, figures in run.items() if "failed" not in figures}
    halved = sum(figures["share_of_macs_that_can_go"] >= 0.5 for figures in good.values())
    exact = max(figures["float64_difference"] for figures in good.values())
    slowest = max(good, key=lambda name: good[name]["trace_seconds"])
    used = sum(figures["trains"] is True and figures["exports"] is True for figures in good.values())
    return [
        f"- `{path.relative_to(ROOT)}`: of {len(models)} classifiers {len(run)} were tried (the rest is too large for "
        f"that machine); {len(good)} converted with a random half of their prunable channels dead, the outputs at most "
        f"{exact:.0e} apart in float64; {halved} can lose half of their MACs and more; {used} then trained a step and "
        f"exported. Slowest trace: {slowest}, {good[slowest]['trace_seconds']:.0f} s."
    ]


def row(result: dict[str, Any]) -> list[str]:
    """One comparison's cells."""
    base, pruned = result["comparison"]["base"], result["comparison"]["pruned"]
    recipe = result["pruning"]["run"]["recipe"]
    before = result["base_training"]["recipe"]["epochs"]
    return [
        f"`{result['arch']}`, {data_name(result)}",
        f"{before} + {recipe['epochs']}",
        f"{base['val']['top1']:.2f}%",
        f"{pruned['val']['top1']:.2f}%",
        f"{pruned['macs'] / base['macs']:.1%}",
        f"{pruned['parameters'] / base['parameters']:.1%}",
        f"{result['comparison']['speed_up']['64']:.2f}x",
    ]


def note(path: Path, result: dict[str, Any]) -> str:
    """Where a row comes from: file, seed, test images, versions, hardware, and how equal the conversion was."""
    run, conversion = result["pruning"]["run"], result["pruning"]["conversion"]
    hardware = run["hardware"]
    machine = ", ".join(hardware["gpus"]) or f"{hardware['cpu']}, {hardware['cores']} cores"
    return (
        f"- `{path.relative_to(ROOT)}`: n = 1 (seed {run['seed']}), {result['val']['num']:,} test images, last epoch's "
        f"weights, torch {run['versions']['torch']}, {machine}. Conversion against the trained network, largest "
        f"difference of the outputs: {conversion['float64_difference']:.0e} in float64, "
        f"{conversion['float32_difference']:.0e} in float32."
    )


def data_name(result: dict[str, Any]) -> str:
    """The data as a reader knows it: for a folder of images, the folder's name."""
    folder = result["pruning"]["run"]["recipe"].get("data_dir")
    return result["dataset"] if result["dataset"] != "folder" else Path(folder).name.replace("_", " ")


if __name__ == "__main__":
    main()
