"""Write the tables of README.md and docs/results/ from the files under results/, so that no figure in them is typed.

    python tools/results_table.py            # rewrites docs/results/coverage.md, and of the other pages what is marked
    python tools/results_table.py --check    # changes nothing; exit code 1 where a page isn't what the files say

Every file in results/ (but results/bases, which runs start from) stands on some page: one that is missing, and one that
no page shows or names, are errors in both.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from benchmarks import robustness_table as robustness
from benchmarks import whole_runs
from benchmarks.cost.tables import communication_table, loading_table, method_table, threads_table
from benchmarks.cost.training_figures import table as training_table
from benchmarks.coverage.tables import PAGE as COVERAGE_PAGE
from benchmarks.coverage.tables import page as coverage_page
from benchmarks.coverage.tables import random_table
from benchmarks.coverage.tables import summary as coverage_summary
from benchmarks.first_commands_table import first_commands_sentence
from benchmarks.formats_table import formats_table
from benchmarks.latency_table import latency_target_table
from benchmarks.studies.one_shot_table import one_shot_table
from benchmarks.studies.results import at_best_rates, evaluations_table
from benchmarks.studies.results import table as study_table
from benchmarks.studies.ways import ways_table
from benchmarks.tutorial_table import tutorial_table
from rr.errors import InputError
from training.endings import ends_in_one_line
from training.options import OptionParser

README = "README.md"
PAGES = "docs/results"
RUNS = tuple(f"{name}.json" for name in whole_runs.NAMES)
SHOWN = (".json", ".png")
NAMED = re.compile(r"(?:`|\]\((?:\.\./)*)results/([\w/.-]+\.(?:json|png))[`)]")  # in a text, or by a link
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """What stands between two markers of a page.

    Attributes:
        page: its path in the checkout.
        name: of the markers.
        files: in results/, that it is made of.
        write: takes what is in these files, gives Markdown.
    """

    page: str
    name: str
    files: tuple[str, ...]
    write: Callable[..., str]


def study(page: str, name: str, file: str, choose: Callable[[Sequence[Results]], Sequence[Results]] = list) -> Part:
    """The table of a study's entries, those that `choose` picks."""
    return Part(page, name, (file,), lambda results: study_table(results, file, choose(results["entries"])))


PARTS = (
    Part(README, "results", RUNS, lambda *runs: whole_runs.accuracy_table(runs)),
    Part(README, "lossless", RUNS, lambda *runs: whole_runs.lossless(runs)),
    Part(README, "ways", ("short_schedules.json",), ways_table),
    Part(README, "coverage", ("coverage.json",), coverage_summary),
    Part(README, "first commands", ("first_commands.json",), first_commands_sentence),
    Part(f"{PAGES}/runs.md", "results", RUNS, lambda *runs: whole_runs.accuracy_table(runs)),
    Part(f"{PAGES}/runs.md", "lossless", RUNS, lambda *runs: whole_runs.lossless(runs)),
    Part(f"{PAGES}/runs.md", "proofs", RUNS, lambda *runs: whole_runs.proof_table(whole_runs.NAMES, runs)),
    study(f"{PAGES}/short_schedules.md", "best rates", "short_schedules.json", at_best_rates),
    study(f"{PAGES}/short_schedules.md", "all rates", "short_schedules.json"),
    study(f"{PAGES}/src56_60_epochs.md", "table", "short_schedules_src56.json"),
    Part(
        f"{PAGES}/src56_60_epochs.md",
        "on the way",
        ("short_schedules_src56.json",),
        lambda results: evaluations_table(results["entries"]),
    ),
    study(f"{PAGES}/fast_settings.md", "table", "fast_settings.json"),
    study(f"{PAGES}/fast_settings.md", "first trial", "short_schedules_trial.json"),
    study(f"{PAGES}/narrowing.md", "table", "narrowing_accuracy.json"),
    study(f"{PAGES}/gap.md", "table", "gap.json"),
    Part(
        f"{PAGES}/training_cost.md",
        "runs",
        ("training_cost.json",),
        lambda results: training_table(results["entries"]),
    ),
    Part(f"{PAGES}/training_cost.md", "method", ("method_cost.json",), method_table),
    Part(f"{PAGES}/training_cost.md", "threads", ("threads.json",), threads_table),
    Part(f"{PAGES}/training_cost.md", "processes", ("communication.json",), communication_table),
    Part(f"{PAGES}/training_cost.md", "loading", ("loading.json",), loading_table),
    Part(f"{PAGES}/prune_now.md", "table", ("prune_now.json",), one_shot_table),
    Part(f"{PAGES}/random_networks.md", "table", ("random_networks.json",), random_table),
    Part(f"{PAGES}/formats.md", "table", ("formats.json",), formats_table),
    Part(f"{PAGES}/latency_target.md", "table", ("latency_target.json",), latency_target_table),
    Part(f"{PAGES}/robustness.md", "table", robustness.FILES, robustness.robustness_table),
    Part("docs/tutorial.md", "times", ("tutorial.json",), tutorial_table),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite or check the pages."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where a page is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of README.md, results/ and docs/")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ends_in_one_line():
        fresh = written(options.root)
        old = [path for path, text in fresh.items() if not path.is_file() or path.read_text() != text]
        if options.check:
            for path in old:
                print(f"{path} isn't what results/ says: run python tools/results_table.py")
            sys.exit(1 if old else 0)
        for path in old:
            path.write_text(fresh[path])
            print(f"wrote {path}")


def written(root: Path) -> dict[Path, str]:
    """The pages that come from results/, as they should be.

    Raises:
        InputError: for a file that a page needs and nobody has, and for one that no page shows.
    """
    files = {file: read(root, file, part.page) for part in PARTS for file in part.files}
    shown = files.keys() | named(root)
    there = [path.relative_to(root / "results") for path in (root / "results").rglob("*") if path.suffix in SHOWN]
    unused = sorted(path.as_posix() for path in there if path.parts[0] != "bases" and path.as_posix() not in shown)
    if unused:
        raise InputError(f"no page shows results/{', '.join(unused)}: give it a part in tools/results_table.py")
    texts = {page: (root / page).read_text() for page in dict.fromkeys(part.page for part in PARTS)}
    for part in PARTS:
        texts[part.page] = replaced(texts[part.page], part, part.write(*(files[file] for file in part.files)))
    texts[COVERAGE_PAGE] = coverage_page(files["coverage.json"])
    return {root / page: text for page, text in texts.items()}


def named(root: Path) -> set[str]:
    """The files in results/ that pages name in their text, or have as a picture.

    Raises:
        InputError: for one that is missing.
    """
    found = set()
    for page in sorted([root / README, *(root / "docs").rglob("*.md")]):
        for file in NAMED.findall(page.read_text()):
            if not (root / "results" / file).is_file():
                raise InputError(f"results/{file} is missing, and {page} names it: measure it again, or drop the name")
            found.add(file)
    return found


def read(root: Path, file: str, page: str) -> Results:
    """What a file in results/ holds."""
    path = root / "results" / file
    if not path.is_file():
        raise InputError(f"{path} is missing, and {page} shows it: measure it again, or take its part out of the tool")

    return json.loads(path.read_text())


def replaced(text: str, part: Part, fresh: str) -> str:
    """The page with what stands between the part's two markers replaced."""
    begin, end = f"<!-- {part.name}: begin (tools/results_table.py) -->", f"<!-- {part.name}: end -->"
    if (text.count(begin), text.count(end)) != (1, 1):
        raise InputError(f"{part.page} must have the markers {begin} and {end} once each")
    head, rest = text.split(begin)
    _, tail = rest.split(end)
    return f"{head}{begin}\n{fresh}\n{end}{tail}"


if __name__ == "__main__":
    main()
