"""Networks whose compactors are folded in mid-run, and a fold at any time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rr import ResRepPruner, paper_config
from rr.narrowing.refold import outputs_of_layer, refold, refoldable
from rr.narrowing.variance import VarianceMeter
from tests.rr.narrowed import FAMILIES
from tests.rr.networks import generic, graph_of


def folding_pruner(family: str, **settings: object) -> ResRepPruner:
    """A network in float64 with compactors that are no identity any more."""
    build, layers, size = FAMILIES[family]
    torch.manual_seed(0)
    model = generic(build()).double()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    settings = {"flops_target": 0.2, "rows_per_update": 10**6, **settings}
    config = paper_config(layers=layers, narrow="full", **settings)
    images = torch.randn(2, 3, size, size)
    diagonal = config.compactors == "diagonal"
    graph = graph_of(build, tuple(images.shape), silence=True, diagonal=diagonal)
    pruner = ResRepPruner(model, images, config, graph=graph)
    with torch.no_grad():
        for compactor in pruner.compactors.values():
            compactor.pwc.weight += 0.2 * torch.randn_like(compactor.pwc.weight)
    return pruner


def images_of(family: str, seed: int = 0, number: int = 4) -> torch.Tensor:
    size = FAMILIES[family][2]
    return torch.randn(number, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense_layers(pruner: ResRepPruner) -> dict[str, tuple[int, int]]:
    """Alive outputs and all outputs of each layer with a dense compactor."""
    sites = [name for name, site in pruner.graph.sites.items() if site.groups == 1 and site.host in pruner.compactors]
    return {name: outputs_of_layer(pruner.live, name) for name in sites}


class Folding:
    """A fold of all layers with dead outputs, whatever else is still to die: measured from now on, then done."""

    def __init__(self, pruner: ResRepPruner) -> None:
        self.pruner, live = pruner, pruner.live
        self.meters = {}
        for name in refoldable(live):
            alive, outputs = outputs_of_layer(live, name)
            if alive < outputs:
                site = live.graph.sites[name]
                self.meters[name] = VarianceMeter(live.compactors[site.host], live.remaining.present(site.units))

    def fold(self, *optimizers: torch.optim.Optimizer, also: Sequence[nn.Module] = ()) -> int:
        """How many outputs went."""
        live = self.pruner.live
        gone = sum(outputs - alive for alive, outputs in (outputs_of_layer(live, name) for name in self.meters))
        variances = {}
        for name, meter in self.meters.items():
            variances[name] = meter.mean_of(live.remaining.present(live.graph.sites[name].units))
            meter.remove()
        lives = [live, *(live.follower(model) for model in also)]
        for follower in lives[1:]:
            follower.zero_dead_rows(live.unit_norms() > 0)
        refold(lives, variances, self.pruner.example_inputs, [optimizer.state for optimizer in optimizers])
        torch.compiler.reset()
        return gone
