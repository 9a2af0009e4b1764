"""Write the tables of README.md and docs/ from the files under results/, so that no figure in them is typed.

python tools/results_table.py            # rewrites docs/coverage.md and the parts of the other pages between markers
python tools/results_table.py --check    # exit code 1 where one of them isn't what the files say
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from benchmarks.cost.training_figures import table as cost_table
from benchmarks.coverage.tables import PAGE, readme_part, summary
from benchmarks.coverage.tables import page as coverage_page
from benchmarks.studies.results import at_best_rates, evaluations_table
from benchmarks.studies.results import table as study_table

README, EXPERIMENTS = Path("README.md"), Path("docs") / "experiments.md"
STUDIES = (  # the page, its part, the file in results/, and which of its entries
    (README, "narrowing accuracy", "narrowing_accuracy.json", list),
    (README, "short schedules", "short_schedules.json", at_best_rates),
    (README, "short schedules of src56", "short_schedules_src56.json", at_best_rates),
    (EXPERIMENTS, "short schedules, all rates", "short_schedules.json", list),
    (EXPERIMENTS, "short schedules of src56", "short_schedules_src56.json", list),
    (EXPERIMENTS, "settings of fast", "fast_settings.json", list),
)
ON_THE_WAY = (EXPERIMENTS, "evaluations of src56", "short_schedules_src56.json")
HEAD = ["network, data", "epochs", "top-1 before", "top-1 after", "MACs kept", "parameters kept", "faster at batch 64"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where a file is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of README.md, results/ and docs/")
    options = parser.parse_args(arguments)
    fresh = written(options.root)
    if options.check:
        sys.exit(any(not path.is_file() or path.read_text() != text for path, text in fresh.items()))
    for path, text in fresh.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def written(root: Path) -> dict[Path, str]:
    """The files that come from results/, as they should be."""
    texts = {page: (root / page).read_text() for page in (README, EXPERIMENTS)}
    texts[README] = replaced(texts[README], "results", table(root / "results"))
    cost = root / "results" / "training_cost.json"
    if cost.is_file():
        texts[README] = replaced(texts[README], "training cost", cost_table(json.loads(cost.read_text())["entries"]))
    for page, part, file, choose in STUDIES:
        study = root / "results" / file
        if study.is_file():
            results = json.loads(study.read_text())
            texts[page] = replaced(texts[page], part, study_table(results, file, choose(results["entries"])))
    page, part, file = ON_THE_WAY
    if (root / "results" / file).is_file():
        entries = json.loads((root / "results" / file).read_text())["entries"]
        texts[page] = replaced(texts[page], part, evaluations_table(entries))
    coverage = root / "results" / "coverage.json"
    if coverage.is_file():
        results = json.loads(coverage.read_text())
        texts[README] = replaced(texts[README], "coverage", readme_part(results))
        texts[Path(PAGE)] = coverage_page(results)
    return {root / page: text for page, text in texts.items()}


def replaced(text: str, name: str, fresh: str) -> str:
    """The text with what is between a part's two markers replaced."""
    begin, end = f"<!-- {name}: begin (tools/results_table.py) -->", f"<!-- {name}: end -->"
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n{fresh}\n{end}{tail}"


def table(folder: Path) -> str:
    """The Markdown table of every comparison in the folder's JSON files, with notes on what measured them."""
    files = {path: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    found = {path: result for path, result in files.items() if "comparison" in result}
    rows = [HEAD, ["---"] * len(HEAD), *(row(result) for result in found.values())]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    notes = [note(path, result) for path, result in found.items()]
    coverage = files.get(folder / "coverage.json")
    if coverage is not None:
        notes.append(f"- `{folder.name}/coverage.json`: {summary(coverage)}")
    return "\n".join([*lines, "", *notes])


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
        f"- `{path.parent.name}/{path.name}`: n = 1 (seed {run['seed']}), {result['val']['num']:,} test images, last "
        f"epoch's weights, torch {run['versions']['torch']}, {machine}. Conversion against the trained network, "
        f"largest difference of the outputs: {conversion['float64_difference']:.0e} in float64, "
        f"{conversion['float32_difference']:.0e} in float32."
    )


def data_name(result: dict[str, Any]) -> str:
    """The data as a reader knows it: for a folder of images, the folder's name."""
    folder = result["pruning"]["run"]["recipe"].get("data_dir")
    return result["dataset"] if result["dataset"] != "folder" else Path(folder).name.replace("_", " ")


if __name__ == "__main__":
    main()
