"""What results/coverage.json says, as Markdown: a line on each family, and a page with every network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.coverage.figures import (
    BARS,
    CLASSIFIERS,
    HALF,
    bars,
    largest_difference,
    proven,
    series,
    was_run,
    worst,
)

Figures = Mapping[str, Any]
Models = Mapping[str, Figures]

KINDS = {"cnn": ("CNN", "CNNs"), "transformer": ("attention", "networks with attention"), None: ("-", "networks")}
IN_WORDS = {
    "float64": "equal in float64",
    "float32": "in float32",
    "converts_again": "converted again unchanged",
    "trains": "trained for a step",
    "exports": "exported",
}
# The families of results/coverage.json, and what their networks are called.
WORDS = {
    CLASSIFIERS: "classifiers",
    "detection": "detectors",
    "dense": "networks with an output for each pixel",
    "other": "networks of other kinds",
}
PAGE = "docs/results/coverage.md"
SERIES_HEAD = (
    "series",
    "kind",
    "networks",
    "units",
    "MACs that can go",
    "reach half of their MACs",
    "largest difference in float64",
    "proven",
)
MODEL_HEAD = (
    "network",
    "series",
    "kind",
    "parameters",
    "layers",
    "units",
    "prunable",
    "MACs that can go",
    "MACs at the masks' half",
    "inputs",
    "float64",
    "float32",
    "its own float32",
    "bars missed",
    "CPU seconds to trace and plan",
)
CAUSE_HEAD = ("units", "networks", "why they stay", "for example")


def summary(results: Mapping[str, Any]) -> str:
    """A few sentences: on the classifiers, and on each other family that was examined."""
    models = results["models"]
    families = by_family(models)
    seconds = {name: figures["trace_cpu_seconds"] for name, figures in models.items() if "trace_cpu_seconds" in figures}
    slowest = max(seconds, key=seconds.__getitem__, default=None)
    traced = f" Slowest trace: {slowest}, {seconds[slowest]:.0f} CPU seconds." if slowest else ""
    others = [f" {_tried(members, WORDS[family])}." for family, members in families.items() if family != CLASSIFIERS]
    first = _tried(families.get(CLASSIFIERS, {}), WORDS[CLASSIFIERS], ", a random half of their prunable channels dead")
    meaning = "Proven: outputs equal in float64, converted again, trained for a step, exported."
    return f"{first}.{''.join(others)} {meaning}{traced}"


def _tried(models: Models, word: str, how: str = "") -> str:
    """How many of a family were tried and proven, and how many can lose half of their MACs."""
    tried = _run(models)
    good = [figures for figures in tried.values() if proven(figures)]
    halved = sum(figures["share_of_macs_that_can_go"] >= HALF for figures in good)
    rest = len(models) - len(tried)
    only_traced = f" ({rest} more only traced: too large for that machine)" if rest else ""
    whole = sum(figures.get("dropped") == 0 for figures in tried.values())
    nothing = f"; {whole} have no channel that can go" if whole else ""
    return (
        f"{len(tried)} {word} were tried{only_traced}{how}; {len(good)} are proven, at most {_largest(good)} apart; "
        f"{halved} of them can lose half of their MACs{nothing}"
    )


def random_table(results: Mapping[str, Any]) -> str:
    """How many random networks were tried, and in how many of them each kind of thing was met."""
    ended = f"The run with seed {results['seeds'][-1]} failed" if "failure" in results else "None failed"
    met = [[what, f"{count:,}"] for what, count in results["events"].items()]
    machine = f"{results['hardware']['cpu']}, torch {results['versions']['torch']}"
    lines = [
        f"{results['networks']:,} networks in {results['minutes']:.0f} minutes. {ended}.",
        "",
        *_table(("what was met", "in about so many networks"), met),
        "",
        f"`results/random_networks.json`: {machine}, commit {(results['commit'] or 'unknown')[:10]}.",
    ]
    return "\n".join(lines)


def page(results: Mapping[str, Any]) -> str:
    """The page with every network."""
    models = results["models"]
    return "\n".join(
        [
            "# Coverage: which networks can be pruned, and is the conversion of each one exact?",
            "",
            "    python benchmarks/coverage/run.py",
            "",
            "Written by `tools/results_table.py` from `results/coverage.json`, which this command "
            f"measured on {_machine(results)}.",
            "",
            "Each network got random compactors (0.5 I + noise) and random BN layers, lost a random half of its "
            "prunable units and was converted. Differences are the largest of all outputs and inputs, each output's "
            "over its own largest number, against the unconverted network in float64: the converted one in float64 and "
            "in float32, and the unconverted one's own in float32. Bars: the masks, choosing at random, take the "
            "converted network to half of its MACs (`reaches_half`); float64 at most 1e-10; float32 at most 1e-6, or 4 "
            "times the network's own; the converted network is traced and converted once more without a change, trains "
            "for a step, and exports.",
            "",
            "![CPU seconds to trace and plan against the number of layers](../../results/coverage_seconds.png)",
            *[line for family, members in by_family(models).items() for line in _section(family, members)],
            "",
            "## Which units stay, and why",
            "",
            *_table(CAUSE_HEAD, cause_rows(models)),
            "",
        ]
    )


def by_family(models: Models) -> dict[str, Models]:
    """The models of each family that has any, in the order of `WORDS`; what doesn't say so is a classifier."""
    families = {
        family: {name: figures for name, figures in models.items() if figures.get("family", CLASSIFIERS) == family}
        for family in WORDS
    }
    return {family: members for family, members in families.items() if members}


def _section(family: str, models: Models) -> list[str]:
    """A family's part of the page."""
    return [
        "",
        f"## {family.capitalize()}",
        "",
        *_totals(models),
        *_troubles(models),
        "",
        f"### {family.capitalize()} by series",
        "",
        *_table(SERIES_HEAD, series_rows(models)),
        "",
        f"### {family.capitalize()}: every network",
        "",
        *_table(MODEL_HEAD, model_rows(models)),
    ]


def series_rows(models: Models) -> list[list[str]]:
    """A row per series and kind, in the order of their names, as in `SERIES_HEAD`."""
    groups: dict[tuple[str, str], dict[str, Figures]] = {}
    for name, figures in models.items():
        groups.setdefault((series(name), _kind(figures)), {})[name] = figures
    rows = []
    for (label, kind), members in sorted(groups.items(), key=lambda item: (item[0][0].lower(), item[0][1])):
        traced = [figures for figures in members.values() if "units" in figures]
        tried = _run(members).values()
        rows.append(
            [
                label,
                kind,
                str(len(members)),
                _range([figures["units"] for figures in traced], "{:,}"),
                _range([figures["share_of_macs_that_can_go"] for figures in traced], "{:.1%}"),
                _passed(tried, "reaches_half"),
                _largest(tried),
                _of(sum(proven(figures) for figures in tried), len(tried)),
            ]
        )
    return rows


def model_rows(models: Models) -> list[list[str]]:
    """A row per network, by series, as in `MODEL_HEAD`; what was not measured is a dash."""
    rows = []
    for name, figures in sorted(models.items(), key=lambda item: (series(item[0]).lower(), item[0])):
        differences = figures.get("differences", {}).values()
        missed = [bar for bar in BARS if bars(figures)[bar] is False]
        trouble = "failed" if "failed" in figures else ", ".join(missed) or ("none" if was_run(figures) else "not run")
        rows.append(
            [
                f"`{name}`",
                series(name),
                _kind(figures),
                _cell(figures, "parameters", "{:,}"),
                _cell(figures, "layers", "{:,}"),
                _cell(figures, "units", "{:,}"),
                _cell(figures, "prunable_units", "{:,}"),
                _cell(figures, "share_of_macs_that_can_go", "{:.1%}"),
                _cell(figures.get("half", {}), "macs_ratio", "{:.1%}"),
                ", ".join(figures.get("differences", {})) or "-",
                _largest([figures]),
                _figure(item["float32"] for item in differences),
                _figure(item["float32_own"] for item in differences),
                trouble,
                _cell(figures, "trace_cpu_seconds", "{:.2f}"),
            ]
        )
    return rows


def cause_rows(models: Models) -> list[list[str]]:
    """A row per cause for which units stay, most units first, as in `CAUSE_HEAD`."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, figures in models.items():
        for item in figures.get("stays", []):
            found.setdefault(item["cause"], []).append((name, item))
    units = {cause: sum(item["units"] for _, item in places) for cause, places in found.items()}
    rows = []
    for cause, places in sorted(found.items(), key=lambda item: (-units[item[0]], item[0])):
        name, item = max(places, key=lambda place: place[1]["units"])
        rows.append([f"{units[cause]:,}", f"{len(places):,}", cause, f"`{name}`: {item['example']}"])
    return rows


def _totals(models: Models) -> list[str]:
    """A line per kind of network."""
    lines = []
    for kind, (_, label) in KINDS.items():
        tried = [figures for figures in _run(models).values() if figures.get("kind") == kind]
        if tried:
            good = sum(proven(figures) for figures in tried)
            whole = sum(figures.get("dropped") == 0 for figures in tried)
            nothing = f" ({whole} have no channel that could go, so nothing is shown of them)" if whole else ""
            parts = ", ".join(f"{words} {_passed(tried, bar)}" for bar, words in IN_WORDS.items())
            lines.append(
                f"- {good} of {len(tried)} {label} are proven{nothing}: {parts}. Largest difference in float64: "
                f"{_largest(tried)}. Reach half of their MACs: {_passed(tried, 'reaches_half')}."
            )
    return lines


def _passed(many: Iterable[Figures], bar: str) -> str:
    """How many networks pass a bar, of those where it was measured."""
    judged = [passed for figures in many if (passed := bars(figures)[bar]) is not None]
    return _of(sum(judged), len(judged))


def _troubles(models: Models) -> list[str]:
    """A line per network that failed or was not converted."""
    return [
        f"- `{name}` {verb}: {_plain(figures[key])}"
        for key, verb in (("failed", "failed"), ("not_run", "was not converted"))
        for name, figures in sorted(models.items())
        if key in figures
    ]


def _machine(results: Mapping[str, Any]) -> str:
    """Hardware, versions and commits that a file is from."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    commits = {figures.get("commit", results["commit"]) or "unknown" for figures in results["models"].values()}
    short = [commit[:10] + "+" * commit.endswith("+") for commit in sorted(commits)]  # +: with changes since
    hardware = results["hardware"]
    cpus = sorted({figures.get("cpu", hardware["cpu"]) for figures in results["models"].values()})
    return (
        f"{' and '.join(cpus)}, {hardware['cores']} cores, {results['threads']} threads a network; {versions}; "
        f"commit {', '.join(short)}"
    )


def _run(models: Models) -> dict[str, Figures]:
    return {name: figures for name, figures in models.items() if was_run(figures)}


def _kind(figures: Figures) -> str:
    return KINDS[figures.get("kind")][0]


def _largest(many: Iterable[Figures]) -> str:
    return _figure(value for figures in many if (value := largest_difference(figures)) is not None)


def _figure(values: Iterable[float]) -> str:
    """The worst of the values, in one digit."""
    value = worst(values)
    return "-" if value is None else f"{value:.0e}" if value else "0"


def _of(count: int, total: int) -> str:
    return f"{count} of {total}" if total else "-"


def _range(values: Sequence[float], form: str) -> str:
    ends = [form.format(end) for end in (min(values), max(values))] if values else ["-"]
    return " to ".join(dict.fromkeys(ends))


def _cell(figures: Figures, name: str, form: str) -> str:
    return form.format(figures[name]) if name in figures else "-"


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]
