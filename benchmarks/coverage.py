"""How far the channel graph reaches: classifiers traced, half of their channels killed, converted, compared.

    python benchmarks/coverage.py                       # every torchvision classifier, to results/coverage.json
    python benchmarks/coverage.py --models torchvision/resnet18 timm/efficientnet_lite0 src20       # pip install timm

For each: units, share of the MACs that can go, seconds to trace, and the proof: compactors are random dense
matrices, BN statistics and affine parameters random (negative gammas and betas among them), a random half of the
prunable units is dead. The converted network is compared at two input sizes and another batch size, converted
again, trained for one step and exported. A model that is in the output file already isn't done again, so a stopped
run goes on. About 20 minutes on 2 cores.
"""

import argparse
import copy
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from the checkout without PYTHONPATH

from base_model import build_any
from rr import ChannelGraph, convert, find_compactors
from rr.convert import zero_dead_rows
from training import init_world, surroundings

MOST_PARAMETERS = 250_000_000  # float64 copies of more don't fit into 24 GiB
FIXED_SIZE = ("vit_", "swin", "maxvit")  # networks of one input size, 224


def main(arguments: Sequence[str] | None = None) -> None:
    """Examine the models one by one; each result is on disk before the next begins."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/coverage.json"))
    parser.add_argument(
        "--models", nargs="*", help="torchvision/NAME, timm/NAME or ours (default: all of torchvision's)"
    )
    options = parser.parse_args(arguments)
    classifiers = torchvision.models.list_models(module=torchvision.models)
    names = options.models or [f"torchvision/{name}" for name in classifiers]
    result = json.loads(options.output.read_text()) if options.output.exists() else {"models": {}}
    result.update(surroundings(init_world("cpu")))
    for name in names:
        if name not in result["models"]:
            result["models"][name] = examine(name)
            print(name, json.dumps(result["models"][name]), flush=True)
            options.output.parent.mkdir(exist_ok=True)
            options.output.write_text(json.dumps(result, indent=1) + "\n")
            gc.collect()


def examine(name: str) -> dict[str, Any]:
    """All figures of one model; what goes wrong is a figure as well."""
    torch.manual_seed(0)
    try:
        with torch.device("meta"):
            parameters = sum(parameter.numel() for parameter in build_any(name).parameters())
    except NotImplementedError:  # a constructor that computes with tensors; none of the large ones does
        parameters = sum(parameter.numel() for parameter in build_any(name).parameters())
    if parameters > MOST_PARAMETERS:
        return {"parameters": parameters, "not_run": "too large for this machine's memory in float64"}
    try:
        return {"parameters": parameters, **prove(randomised(build_any(name)).eval(), sizes(name))}
    except Exception as error:  # the benchmark goes on: this is what it is there to find
        return {"parameters": parameters, "failed": f"{type(error).__name__}: {str(error).strip()[:300]}"}


def sizes(name: str) -> tuple[int, int]:
    """Two input sizes."""
    if name.removeprefix("torchvision/").startswith(FIXED_SIZE):
        return 224, 224
    return (299, 331) if "inception" in name else (64, 96)


def randomised(model: nn.Module) -> nn.Module:
    """BN statistics and affine parameters of no particular network, signs included; no weight is zero by design."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5).mul_(torch.where(torch.rand_like(module.weight) < 0.3, -1, 1))
                    module.bias.normal_(0, 0.5)
            elif isinstance(module, nn.Linear) and not module.weight.any():
                nn.init.normal_(module.weight, std=0.02)  # a transformer's head starts at zero
    return model


def prove(model: nn.Module, image_sizes: tuple[int, int]) -> dict[str, Any]:
    """Trace, kill half, convert, compare."""
    images = torch.randn(1, 3, image_sizes[0], image_sizes[0])
    began = time.perf_counter()
    graph = ChannelGraph(model, images)
    figures: dict[str, Any] = {"trace_seconds": time.perf_counter() - began, "layers": len(graph.layers)}
    candidates = np.flatnonzero(graph.prunable)
    full = np.ones(graph.num_units, dtype=bool)
    figures |= {
        "macs": graph.macs(full),
        "units": graph.num_units,
        "prunable_units": len(candidates),
        "share_of_macs_that_can_go": graph.removable_share(),
        "causes": Counter(graph.reasons.values()).most_common(5),
    }
    alive = full.copy()
    alive[candidates[np.random.default_rng(0).random(len(candidates)) < 0.5]] = False
    for group in graph.groups:
        if not alive[group.units].any():
            alive[group.units[0]] = True
    graph.insert_compactors(model, graph.prunable)
    with torch.no_grad():
        for compactor in find_compactors(model).values():
            weight = compactor.pwc.weight
            weight.copy_(0.5 * weight + torch.randn_like(weight) * weight.shape[1] ** -0.5)
    zero_dead_rows(model, graph, alive)
    slim, report = convert(model, graph, images)
    figures |= {
        "macs_ratio": report.macs_ratio,
        "dropped": report.dropped,
        "float64_difference": report.float64_difference,
    }
    figures["differences"] = {
        f"{batch} x 3 x {size} x {size}": differences(model, slim, torch.randn(batch, 3, size, size))
        for batch, size in ((1, image_sizes[0]), (2, image_sizes[1]))
    }
    for check in (converts_again, trains, exports):
        try:
            figures[check.__name__] = check(copy.deepcopy(slim), images)
        except Exception as error:  # aux heads that only run in training, say: a figure, like the others
            figures[check.__name__] = f"{type(error).__name__}: {str(error).strip()[:200]}"
    return figures


@torch.no_grad()
def differences(model: nn.Module, slim: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Largest difference over largest output, against the unconverted model in float64; `slim` is in float32."""
    exact = copy.deepcopy(model).double()(images.double())
    scale = float(exact.abs().max())
    return {
        "float32": float((slim(images) - exact).abs().max()) / scale,
        "float32_own": float((model(images) - exact).abs().max()) / scale,
    }


def converts_again(slim: nn.Module, images: torch.Tensor) -> bool:
    """Whether the converted network is traced again and comes out of a conversion as it went in."""
    again, report = convert(slim, ChannelGraph(slim, images), images, prove=False)
    with torch.no_grad():
        return report.dropped == 0 and torch.allclose(again(images), slim(images), rtol=1e-5, atol=1e-6)


def trains(slim: nn.Module, images: torch.Tensor) -> bool:
    """Whether one step of SGD leaves every parameter finite."""
    slim.train()
    optimizer = torch.optim.SGD(slim.parameters(), lr=1e-4)
    output = slim(torch.cat([images, images.flip(3)]))
    logits = output if isinstance(output, torch.Tensor) else output[0]
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    return all(bool(parameter.isfinite().all()) for parameter in slim.parameters())


def exports(slim: nn.Module, images: torch.Tensor) -> bool:
    """Whether torch.export takes the converted network."""
    torch.export.export(slim.eval(), (images,))
    return True


if __name__ == "__main__":
    main()
