"""Small parts that several tests of the studies share."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from benchmarks.studies import study
from benchmarks.studies.cuts import INNER, convolutions

NETWORK = ("-a", study.NETWORKS[0])
SMALL = "src8"  # what the tests' own studies train


def inner_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(name, conv) for name, conv in convolutions(model) if INNER.search(name)]


def call(place: Path, *more: str) -> list[str]:
    """The options of a study whose files are all in `place`, with more of them."""
    words = ["--data-dir", "images", "--bases", "bases", "--runs", "runs", "--output", "results/short.json"]
    folders = [str(place / word) if index % 2 else word for index, word in enumerate(words)]
    return [*folders, "-a", SMALL, "--data-name", "two classes", *more]
