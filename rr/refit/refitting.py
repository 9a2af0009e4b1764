"""What is left takes over: each layer that reads a dead unit, from the input on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from rr.graph import ChannelGraph, Layer
from rr.refit.capture import Capture
from rr.refit.choosing import readers_of
from rr.refit.feed import Feed
from rr.refit.gram import Gram, regularised, solve
from rr.refit.rows import Reader, matrix_of, put_matrix
from rr.refit.settings import RefitConfig
from rr.runtime import is_first

Expected = dict[tuple[str, int], tuple[Tensor, "Tensor | None"]]  # layer, batch -> outputs, what they are added to


@dataclass(frozen=True)
class LayerRefit:
    """What a layer's refit came to, on the images that it has seen.

    Attributes:
        before: its outputs' mean squared error without a refit, over their variance in the full network.
        after: with it.
    """

    before: float
    after: float


def refit(
    graph: ChannelGraph, full: nn.Module, work: nn.Module, alive: np.ndarray, feed: Feed, settings: RefitConfig
) -> dict[str, LayerRefit]:
    """Refit all layers of `work` that read a dead unit, in place: on what they read now, to give what they gave.

    Args:
        graph: of the network.
        full: the full network.
        work: the one in which dead units are zero.
        alive: [num_units] of bool.
        feed: images.
        settings: of the Gram matrices.
    """
    readers = readers_of(graph, work, ~alive)
    matrices = {each.layer.name: matrix_of(each, full.get_submodule(each.layer.name)).float() for each in readers}
    expected: Expected = {}

    def remember(reader: Reader, batch: int, rows: Tensor, added: Tensor | None) -> None:
        expected[reader.layer.name, batch] = rows @ matrices[reader.layer.name], added

    Capture(full, readers, settings.places).run(feed, remember)
    readers = [reader for reader in readers if (reader.layer.name, 0) in expected]  # not those of training alone
    return {
        reader.layer.name: _refit_layer(reader, work, alive, feed, expected, settings)
        for reader in tqdm(readers, "refitting", disable=None if is_first() else True)
    }


def _refit_layer(
    reader: Reader, work: nn.Module, alive: np.ndarray, feed: Feed, expected: Expected, settings: RefitConfig
) -> LayerRefit:
    layer, module = reader.layer, work.get_submodule(reader.layer.name)
    norm = None if layer.norm is None else work.get_submodule(layer.norm)
    gram, old, scale = Gram(), matrix_of(reader, module), _scale_of(norm, layer)
    squares, means, lost = (torch.zeros((), dtype=torch.float64) for _ in range(3))

    def take_in(_: Reader, batch: int, rows: Tensor, added: Tensor | None) -> None:
        target, added_in_full = expected.pop((layer.name, batch))
        if added is not None and added_in_full is not None:
            target = target + torch.where(scale != 0, (added_in_full - added) / scale, 0.0)
        gram.add(rows, target)
        squares.add_(target.double().square().sum().cpu())
        means.add_(len(target) * target.double().mean(0).square().sum().cpu())
        lost.add_((target - rows @ old.to(rows)).double().square().sum().cpu())

    Capture(work, [reader], settings.places).run(feed, take_in)
    # The ridge pulls towards the layer as it is.
    anchor = torch.cat([old, old.new_zeros(1, old.shape[1])])
    system = regularised(gram.xx, settings.ridge, has_constant=True)
    right = gram.xy + (system - gram.xx).diagonal()[:, None] * anchor
    kept = torch.from_numpy(np.flatnonzero(alive[reader.units])).to(old.device)
    places = torch.cat([kept, kept.new_tensor([len(old)])]) if reader.has_bias else kept
    solution = torch.zeros_like(anchor)
    solution[places] = solve(system[places[:, None], places], right[places])
    put_matrix(reader, module, norm, solution[:-1], solution[-1] if reader.has_bias else None)
    variance = max(float(squares - means), torch.finfo(torch.float64).tiny)
    fitted = float((solution * (gram.xx @ solution - 2 * gram.xy)).sum()) * gram.count  # w'x'x w - 2 w'x'y
    return LayerRefit(float(lost) / variance, max(float(squares) + fitted, 0.0) / variance)


def _scale_of(norm: nn.Module | None, layer: Layer) -> Tensor:
    """[D], what an output of the layer is multiplied by before an addition: by its BN; 0 where that is next to none."""
    if norm is None:
        return torch.ones(len(layer.out_units))
    inverse = torch.rsqrt(norm.running_var.float() + norm.eps)
    scale = inverse if norm.weight is None else norm.weight.detach().float() * inverse
    return torch.where(scale.abs() > 1e-3 * scale.abs().median(), scale, 0.0)
