"""Whole runs (a base trained, pruned, tested by tools/evaluate.py) as the README and docs/results/runs.md show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = (  # of the files in results/, in the order of the rows
    "lenet5bn_fashion_mnist",
    "src20_digits",
    "src20_digits_width8",
    "src20_cifar10_jpeg",
    "src20_cifar10_jpeg_fast",
    "src56_cifar10_jpeg_fast",
)
HEAD = (
    *("network, data", "settings", "epochs", "top-1 before", "after", "change (standard error)", "MACs kept"),
    *("parameters kept", "faster, one image", "64 images"),
)
PROOF_HEAD = (
    *("file", "fold, float64", "fold, float32", "cut", "images only right before, only after the conversion"),
    *("threads, one image", "64 images", "seed", "trained on", "timed on"),
)

Figures = Mapping[str, Any]


def accuracy_table(results: Sequence[Figures]) -> str:
    """What every run came to, a row each, and what holds for all of them."""
    images = sorted({result["val"]["num"] for result in results})
    around = dict.fromkeys(_machine(result["tested"]) for result in results)
    return "\n".join(
        [
            *_table(HEAD, [_accuracy_row(result) for result in results]),
            "",
            f"One run each (n = 1), weights of the last epoch, {_listed([f'{num:,}' for num in images])} test images; "
            "the standard error is that of the change over these images, not over seeds. Faster: base and pruned "
            f"network both with BN folded, each at its best number of threads, {_listed(list(around))}.",
        ]
    )


def lossless(results: Sequence[Figures]) -> str:
    """What the conversions of these runs changed, in words."""
    conversions = [result["pruning"]["conversion"] for result in results]
    largest = {
        name: max(conversion[name] for conversion in conversions)
        for name in ("float64_difference", "float32_difference", "cut_difference")
    }
    changed = max(sum(_changed(result)) for result in results)
    answers = "turns no right answer on a test image into a wrong one, or the other way round, in any run"
    if changed:
        answers = f"turns at most {changed} right answers of a run on its test images into wrong ones, or the other way"
    return (
        f"Over the {len(results)} runs, as shares of the largest output: the folded network is at most "
        f"{largest['float64_difference']:.0e} in float64 ({largest['float32_difference']:.0e} in float32) from the "
        "network whose dead rows are set to zero; setting them to zero moves the trained network's outputs by at most "
        f"{largest['cut_difference']:.0e}. A conversion {answers}."
    )


def proof_table(names: Sequence[str], results: Sequence[Figures]) -> str:
    """How equal each conversion was, and what stands behind its row."""
    rows = [_proof_row(name, result) for name, result in zip(names, results, strict=True)]
    return "\n".join(_table(PROOF_HEAD, rows))


def _accuracy_row(result: Figures) -> list[str]:
    comparison = result["comparison"]
    base, pruned, paired = comparison["base"], comparison["pruned"], comparison["paired"]
    epochs = [run["recipe"]["epochs"] for run in (result["base_training"], result["pruning"]["run"])]
    return [
        f"`{result['arch']}`, {_data_name(result)}",
        _settings(result["pruning"]["run"]["recipe"]),
        " + ".join(map(str, epochs)),
        f"{base['val']['top1']:.2f}%",
        f"{pruned['val']['top1']:.2f}%",
        f"{paired['points']:+.2f} ({paired['standard_error']:.2f})",
        f"{pruned['macs'] / base['macs']:.1%}",
        f"{pruned['parameters'] / base['parameters']:.1%}",
        *(f"{comparison['speed_up'][size]:.2f}x" for size in ("1", "64")),
    ]


def _proof_row(name: str, result: Figures) -> list[str]:
    conversion, run = result["pruning"]["conversion"], result["pruning"]["run"]
    threads = [
        " and ".join(str(result["comparison"][which]["threads"][size]) for which in ("base", "pruned"))
        for size in ("1", "64")
    ]
    return [
        f"`results/{name}.json`",
        *(f"{conversion[which]:.0e}" for which in ("float64_difference", "float32_difference", "cut_difference")),
        ", ".join(map(str, _changed(result))),
        *threads,
        str(run["seed"]),
        _machine(run),
        _machine(result["tested"]),
    ]


def _changed(result: Figures) -> tuple[int, int]:
    """Test images that are right only before, only after the conversion."""
    paired = result["pruning"]["paired"]
    return paired["only_first"], paired["only_second"]


def _settings(recipe: Figures) -> str:
    """The rule that a run was pruned by, as a person would ask for it."""
    words = ["`--fast`" if recipe["score"] == "taylor" else "the paper's rule"]
    if recipe["width_multiple"] > 1:
        words.append(f"`--width-multiple {recipe['width_multiple']}`")
    return ", ".join(words)


def _data_name(result: Figures) -> str:
    """The data as a reader knows it: for a folder of images, the folder's name."""
    folder = result["pruning"]["run"]["recipe"]["data_dir"]
    return (result["dataset"] if result["dataset"] != "folder" else Path(folder).name).replace("_", " ")


def _machine(run: Figures) -> str:
    hardware, threads = run["hardware"], run["processes"] * run["threads"]
    name = ", ".join(hardware["gpus"]) or hardware["cpu"]
    return f"{name} ({threads} of {hardware['cores']} cores, torch {run['versions']['torch']})"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
