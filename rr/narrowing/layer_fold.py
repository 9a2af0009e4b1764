"""One layer's fold in mid-run: the numbers that decide it, and the linear maps that it consists of.

With A = Q diag(gamma / sigma), z what the convolution gives, n the norms of the compactor's rows and s a scale:

    K' = s A K    mean' = s A mean    var' = s^2 Var(A z)    gamma' = sqrt(var' + eps) / (s n)    beta' = Q beta / n

and the compactor is diag(n), so that neither the rows' scores nor their penalty jump. Means are linear, so the running
mean is carried exactly; Var(A z), the variance of the compactor's outputs, depends on how channels vary together, so it
is measured in earlier training steps. s keeps the length of K's filters, and with it their learning rate: behind a BN
that is the rate over the squared length. In training mode the BN then normalises the mixed channels in place of those
that were mixed; only there does the function change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from rr.compactors import CHILD
from rr.graph import Layer, LiveModel
from rr.graph.tensors import in_float64

_ZERO = 1e-12  # a row with a smaller norm can have no direction: it comes out as exactly zero

Modules = Mapping[str, nn.Module]


@dataclass(frozen=True)
class LayerFold:
    """How one layer is folded, the same for a model and for averages of its weights.

    Attributes:
        layer: the layer.
        host: the module behind which its compactor is.
        columns: [R], the place of each row's own channel among the convolution's outputs.
        norms: [R], the compactor's row norms n, 0 for a row that is zero.
        scale: [R], s.
        variance: [R], of its outputs.
    """

    layer: Layer
    host: str
    columns: Tensor
    norms: Tensor
    scale: Tensor
    variance: Tensor

    def rows(self, modules: Modules) -> tuple[Tensor, Tensor]:
        """Q, [R, D], and n, [R]; a row that is zero is taken as the identity's: it needs some filter before it."""
        matrix = in_float64(getattr(modules[self.host], CHILD).matrix)
        identity = nn.functional.one_hot(self.columns, matrix.shape[1]).double()
        zero = self.norms == 0
        return torch.where(zero[:, None], identity, matrix), torch.where(zero, 1.0, self.norms)

    def mixing(self, modules: Modules) -> Tensor:
        """s A, [R, D]: what the fold makes of the layer's outputs."""
        matrix, _ = self.rows(modules)
        if self.layer.norm is not None:
            matrix = matrix * bn_scale(modules[self.layer.norm])
        return self.scale[:, None] * matrix

    def filters(self, modules: Modules) -> Tensor:
        """K, [D, inputs x kernel]."""
        weight = in_float64(modules[self.layer.name].weight)
        return weight.movedim(self.layer.output_dim, 0).flatten(1)


def planned(live: LiveModel, name: str, variance: Tensor) -> LayerFold:
    """How to fold the compactor of a layer, by its weights at present.

    Args:
        live: the model.
        name: the layer's name.
        variance: [R], of the compactor's outputs, one for each row that it has.
    """
    layer, host = live.graph.layers[name], live.graph.sites[name].host
    present = np.flatnonzero(~live.remaining.removed[layer.out_units])
    columns = torch.from_numpy(np.searchsorted(live.remaining.outputs_left(layer), present))
    norms = in_float64(live.compactors[host].matrix).norm(dim=1)
    norms = torch.where(norms < _ZERO, 0.0, norms)
    unscaled = LayerFold(layer, host, columns, norms, torch.ones_like(norms), in_float64(variance))
    filters = unscaled.filters(live.modules)
    lengths = (unscaled.mixing(live.modules) @ filters).norm(dim=1)
    if layer.norm is None:
        scale = 1 / torch.where(norms > 0, norms, 1.0)
    else:
        scale = torch.where(lengths > 0, filters.square().sum(1).mean().sqrt() / lengths, 1.0)
    return replace(unscaled, scale=scale)


def bn_scale(norm: nn.Module) -> Tensor:
    """gamma / sigma, [D]."""
    return in_float64(norm.weight) * torch.rsqrt(in_float64(norm.running_var) + norm.eps)


def mixed(mixing: Tensor, value: Tensor, dim: int) -> Tensor:
    """[R, D] times a tensor with D entries along `dim`, which then has R there."""
    return torch.tensordot(mixing, value, ([1], [dim])).movedim(0, dim).contiguous()
