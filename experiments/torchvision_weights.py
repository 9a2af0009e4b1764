"""torchvision's ResNets as base models: same weights, our names. What `transform_torchvision.py` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torchvision.models
from torch import Tensor, nn

from base_model import build_model
from base_model.torchvision_names import from_torchvision
from rr.errors import InputError
from rr.weights import load_strict, read_pth, save_hdf5

THEIR_NAMES = {"sres50": "resnet50", "sres101": "resnet101", "sres152": "resnet152"}
# Largest difference of the logits, relative to the largest logit.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}


def transform(arch: str, weights: Path | None, output: Path | None) -> Iterator[str]:
    """Read the weights, prove that both networks are the same, and write ours.

    Args:
        arch: our network's name, one of `THEIR_NAMES`.
        weights: a torchvision state dict (.pth); None to download it.
        output: the HDF5 file; None for the usual one.

    Yields:
        Lines of text for the user.

    Raises:
        InputError: if the weights can't be had, don't fit, or the logits differ.
    """
    if weights is None:
        state, source = download(arch), "torchvision IMAGENET1K_V1"
    else:
        state, source = read_state_dict(weights), weights.name
    ours, theirs = both_networks(arch, state, source)
    for dtype, tolerance in TOLERANCES.items():
        difference = logit_difference(ours, theirs, dtype)
        if not difference <= tolerance:  # NaN isn't
            raise InputError(f"the logits differ by {difference:.1e} in {dtype}: check the weights in {source}")
        yield f"largest difference of the logits, relative, {dtype}: {difference:.1e}"
    output = output or Path(f"torchvision_res{arch.removeprefix('sres')}.hdf5")
    save_hdf5(output, ours.state_dict(), {"arch": arch, "num_classes": ours.fc.out_features, "source": source})
    yield f"wrote {output}; prune it: python rr/exp_resrep.py -a {arch}"


def download(arch: str) -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1 weights.

    Raises:
        InputError: if they can't be fetched.
    """
    weights = torchvision.models.get_model_weights(THEIR_NAMES[arch])["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a wrong hash
        raise InputError(
            f"can't download {weights.url} ({error}): fetch it yourself and give --weights FILE"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a .pth file.

    Raises:
        InputError: if the file holds anything else.
    """
    state = read_pth(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path} isn't a state dict: save model.state_dict() of torchvision's network")
    return state


def both_networks(arch: str, state: dict[str, Tensor], source: str) -> tuple[nn.Module, nn.Module]:
    """Our network and torchvision's, both with these weights.

    Args:
        arch: our network's name.
        state: torchvision's state dict.
        source: where it is from, for messages.

    Raises:
        InputError: if they don't fit.
    """
    renamed = from_torchvision(state)
    if "fc.weight" not in renamed:
        raise InputError(f"{source} has no fc.weight: give the state dict of the whole network")
    num_classes = len(renamed["fc.weight"])
    ours = build_model(arch, num_classes=num_classes)
    load_strict(ours, renamed, source)
    theirs = torchvision.models.get_model(THEIR_NAMES[arch], weights=None, num_classes=num_classes)
    load_strict(theirs, state, source)
    return ours, theirs


@torch.no_grad()
def logit_difference(ours: nn.Module, theirs: nn.Module, dtype: torch.dtype) -> float:
    """Largest difference of the logits on two random images in eval mode, relative to the largest logit."""
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = theirs.to(dtype).eval()(images)
    difference = (ours.to(dtype).eval()(images) - expected).abs().max() / expected.abs().max()
    return difference.item()
