"""The networks that run.py examines, by name: how each is built, what it is called with, and how it is trained.

A name is `SOURCE/NETWORK`; the source is a package (`PACKAGES`) or `own`, for what stands beside this file. Names that
no list has are those of classifiers, as `base_model.build_any` takes them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torchvision

from base_model import build_any
from benchmarks.coverage.dense import DENSE
from benchmarks.coverage.detection import DETECTION
from benchmarks.coverage.figures import CLASSIFIERS
from benchmarks.coverage.losses import classes
from benchmarks.coverage.network import Network, images, listed
from benchmarks.coverage.other import OTHER

FAMILIES = {"detection": DETECTION, "dense": DENSE, "other": OTHER}
FAMILY_NAMES = (CLASSIFIERS, *FAMILIES)

# Source in a name -> the module to import, and the package to install.
PACKAGES = {
    "timm": ("timm", "timm"),
    "ultralytics": ("ultralytics", "ultralytics"),
    "smp": ("segmentation_models_pytorch", "segmentation-models-pytorch"),
    "monai": ("monai", "monai"),
    "pytorchcv": ("pytorchcv", "pytorchcv"),
    "torchaudio": ("torchaudio", "torchaudio"),
}
SIZES = ((64, 96), (299, 331), (224, 256), (224, 224))  # pairs of sizes of images; the first that a classifier takes
WINDOWED = ("swin", "maxvit")  # take 64 x 64 as well, but then compute mostly padding
TIMM_NAMES = Path(__file__).with_name("timm_networks.txt")


def network(name: str) -> Network:
    """The network of this name: of the lists, or else a classifier."""
    for members in FAMILIES.values():
        if name in members:
            return members[name]
    sizes = SIZES[2 if name.rpartition("/")[2].startswith(WINDOWED) else 0 :]
    return Network(lambda: build_any(name), images(*sizes), classes)


def family_of(name: str) -> str:
    """Which of `FAMILY_NAMES` the network of this name is in."""
    return next((family for family, members in FAMILIES.items() if name in members), CLASSIFIERS)


def names(family: str) -> list[str]:
    """All of a family: for classifiers those of torchvision, and timm's as listed beside this file."""
    if family != CLASSIFIERS:
        return list(FAMILIES[family])
    theirs = [f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)]
    return theirs + [f"timm/{name}" for name in listed(TIMM_NAMES)]


def missing_packages(chosen: Sequence[str]) -> dict[str, list[str]]:
    """The packages that aren't installed, as pip calls them, and the names that need each."""
    missing: dict[str, list[str]] = {}
    for name in chosen:
        module, package = PACKAGES.get(name.partition("/")[0], (None, None))
        if module and importlib.util.find_spec(module) is None:
            missing.setdefault(package, []).append(name)
    return missing
