"""torchvision's ResNet-50, 101 or 152 as a base model: same weights, our names, in HDF5.

    python transform_torchvision.py                          # downloads, writes torchvision_res50.hdf5
    python transform_torchvision.py -a sres101 --weights resnet101.pth

Without --weights it downloads torchvision's IMAGENET1K_V1 weights, which the paper starts from (section 4.1; ResNet-50:
76.15% top-1, 98 MB). It writes only after both networks gave the same logits on random images. Takes seconds on a CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torchvision.models
from torch import Tensor, nn

from base_model import build_model
from base_model.torchvision_names import from_torchvision
from rr.weights import load_strict, read_pth, save_hdf5
from training.bad_input import exit_on_bad_input

ARCHS = {"sres50": "resnet50", "sres101": "resnet101", "sres152": "resnet152"}
# Largest difference of the logits, relative to the largest logit.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}


def main() -> None:
    """Read the weights, prove that both networks are the same, and write ours."""
    args = parse_args()
    if args.weights is None:
        state, source = download(args.arch), "torchvision IMAGENET1K_V1"
    else:
        state, source = read_state_dict(args.weights), args.weights.name
    ours, theirs = both_networks(args.arch, state, source)
    for dtype, tolerance in TOLERANCES.items():
        difference = logit_difference(ours, theirs, dtype)
        if not difference <= tolerance:  # NaN isn't
            raise ValueError(f"the logits differ by {difference:.1e} in {dtype}: check the weights in {source}")
        print(f"largest difference of the logits, relative, {dtype}: {difference:.1e}")
    output = args.output or Path(f"torchvision_res{args.arch.removeprefix('sres')}.hdf5")
    num_classes = ours.fc.out_features
    save_hdf5(output, ours.state_dict(), {"arch": args.arch, "num_classes": num_classes, "source": source})
    print(f"wrote {output}")


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-a", "--arch", choices=ARCHS, default="sres50", help="the network (default: sres50)")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="a torchvision state dict (.pth); default: download"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: torchvision_res50.hdf5 (res101, res152)")
    return parser.parse_args()


def download(arch: str) -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1 weights; ValueError if they can't be fetched."""
    weights = torchvision.models.get_model_weights(ARCHS[arch])["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a wrong hash
        raise ValueError(
            f"can't download {weights.url} ({error}): fetch it yourself and give --weights FILE"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict from a .pth file; ValueError if the file holds anything else."""
    state = read_pth(path)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} isn't a state dict: save model.state_dict() of torchvision's network")
    return state


def both_networks(arch: str, state: dict[str, Tensor], source: str) -> tuple[nn.Module, nn.Module]:
    """Our network and torchvision's with these weights; ValueError if they don't fit."""
    renamed = from_torchvision(state)
    if "fc.weight" not in renamed:
        raise ValueError(f"{source} has no fc.weight: give the state dict of the whole network")
    num_classes = len(renamed["fc.weight"])
    ours = build_model(arch, num_classes=num_classes)
    load_strict(ours, renamed, source)
    theirs = torchvision.models.get_model(ARCHS[arch], weights=None, num_classes=num_classes)
    load_strict(theirs, state, source)
    return ours, theirs


@torch.no_grad()
def logit_difference(ours: nn.Module, theirs: nn.Module, dtype: torch.dtype) -> float:
    """Largest difference of the logits on two random images in eval mode, relative to the largest logit."""
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = theirs.to(dtype).eval()(images)
    difference = (ours.to(dtype).eval()(images) - expected).abs().max() / expected.abs().max()
    return difference.item()


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
