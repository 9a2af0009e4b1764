"""Fold conv-BN-compactor into narrow plain convs, and prove the result equal (section 3.2)."""

from __future__ import annotations

import copy
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import nn

from rr.blocks import stand_in, without_unread
from rr.compactors import Compactor, find_compactors, remove_compactors
from rr.constants import dead_constants
from rr.costs import multiples_in_units
from rr.flow import PRODUCERS
from rr.graph import ChannelGraph, Layer
from rr.masks import rounded_up
from rr.proof import (
    FLOAT64_TOLERANCE,
    ConversionError,
    difference_of,
    exact_copy,
    in_float64,
    inputs_and_outputs,
    outputs_of,
)
from rr.trace import Inputs, named_tensors
from rr.weights import count_channels, left_of_norm
from rr.weights.networks import note_widths

FLOAT32_TOLERANCE = 1e-6  # or 4 times the unconverted model's own float32 error, where that is more
CUT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did and how equal the result is. Differences: largest |a - b| over largest |a|.

    widths:          width of every conv (then hidden linears) in building order, as `ChannelGraph.widths`
    largest_dropped: largest norm among the dropped rows, 0 where none was dropped
    kept_for_width:  rows under the threshold that stay, so that widths are the least width and multiples
    cut_difference:  float64, the model with its dropped rows at exactly zero against the model as trained
    float64_difference: float64, the converted model against the one with zeroed rows; at most 1e-10
    float32_difference: the converted model in float32 against the one with zeroed rows in float64
    float32_own_error:  the unconverted model in float32 against itself in float64
    Differences are None where the proof was not asked for.
    """

    macs_before: int
    macs_after: int
    parameters_before: int
    parameters_after: int
    widths: tuple[int, ...]
    dropped: int
    largest_dropped: float
    kept_for_width: int
    fold_seconds: float
    cut_difference: float | None = None
    float64_difference: float | None = None
    float32_difference: float | None = None
    float32_own_error: float | None = None

    @property
    def macs_ratio(self) -> float:
        """MACs after over MACs before."""
        return self.macs_after / self.macs_before

    @property
    def parameters_ratio(self) -> float:
        """Parameters after over parameters before."""
        return self.parameters_after / self.parameters_before

    def as_dict(self) -> dict[str, object]:
        """Plain values, for a run's file."""
        return {
            **asdict(self),
            "widths": list(self.widths),
            "macs_ratio": self.macs_ratio,
            "parameters_ratio": self.parameters_ratio,
        }


def unit_norms(graph: ChannelGraph, compactors: dict[str, Compactor]) -> np.ndarray:
    """[num_units]: root mean square over a unit's rows of their L2 norms; infinite where a row has no compactor.

    For a unit of one row, as in the paper's layers, this is the row's norm.
    """
    squares = np.zeros(graph.num_units)
    rows = np.zeros(graph.num_units)
    for site in graph.sites.values():
        if site.host in compactors:
            matrix = in_float64(compactors[site.host].matrix).numpy()
            np.add.at(squares, graph.present(site.units), (matrix**2).sum(axis=1))
            np.add.at(rows, graph.present(site.units), 1)
        else:
            squares[site.units] = np.inf
    with np.errstate(invalid="ignore"):
        norms = np.where(rows > 0, np.sqrt(squares / np.maximum(rows, 1)), np.inf)
    norms[graph.removed] = 0.0
    return norms


def alive_units(
    graph: ChannelGraph,
    norms: np.ndarray,
    threshold: float,
    min_width: np.ndarray | int = 1,
    width_multiple: int = 1,
) -> np.ndarray:
    """[num_units] of bool: units that stay, those with a norm of at least `threshold` and some of the others.

    norms: [num_units], as `unit_norms` has them

    Where fewer than `min_width` (of each group, [groups], or of any) would stay, or a number that makes its layers'
    channels no multiple of `width_multiple`, the largest of the others stay as well, up to that or to the full width:
    that loses nothing.
    """
    alive = ((norms >= threshold) & ~graph.removed) | ~graph.prunable
    sizes = graph.macs.group_sizes
    widths = np.maximum(graph.macs.group_widths(alive), min_width)
    widths = rounded_up(widths, sizes, multiples_in_units(graph, width_multiple))
    for group, width in zip(graph.groups, widths, strict=True):
        if alive[group.units].sum() < width:  # those that are alive anyway have the largest norms
            alive[group.units[np.argsort(-norms[group.units], kind="stable")[:width]]] = True
    alive &= ~graph.removed
    # Where a group is gone, nothing may read others any more, whatever their norms.
    return without_unread(graph, alive, graph.prunable & np.isfinite(norms)) if (widths == 0).any() else alive


def convert(
    model: nn.Module,
    graph: ChannelGraph,
    example_inputs: Inputs,
    *,
    threshold: float = 1e-5,
    min_width: np.ndarray | int = 1,
    width_multiple: int = 1,
    prove: bool = True,
) -> tuple[nn.Module, ConversionReport]:
    """A plain, narrow copy of `model`: compactors and BN folded, dead channels gone. `model` stays as it is.

    threshold: rows (units) with a smaller norm are dropped; section 3.3 has 1e-5
    min_width: units that each group ([groups]) or any keeps all the same, those with the largest norms; 0 only where a
        group may vanish (rr.blocks)
    width_multiple: what the channels of a group's layers are to be a multiple of, by keeping more units
    prove: compare both models on inputs shaped like `example_inputs` (`rr.proof.inputs_and_outputs`), in float64 and
        float32; a model in half precision too, whose copy is then rounded as it was itself

    Raises ConversionError when they differ by more than the tolerances above.
    """
    norms = unit_norms(graph, find_compactors(model))
    alive = alive_units(graph, norms, threshold, min_width, width_multiple)
    expected = _expected(model, graph, alive, example_inputs) if prove else None
    start = time.perf_counter()
    folded = fold(model, graph, alive)
    seconds = time.perf_counter() - start
    differences = _differences(expected, folded) if prove else {}
    anchor = next(model.parameters())
    slim = note_widths(folded.to(anchor.dtype).to(anchor.device), graph.widths(alive))
    report = ConversionReport(
        macs_before=graph.macs(np.ones(graph.num_units, dtype=bool)),
        macs_after=graph.macs(alive),
        parameters_before=graph.parameters.full,
        parameters_after=sum(parameter.numel() for parameter in slim.parameters()),
        widths=tuple(graph.widths(alive)),
        dropped=int((~alive).sum()),
        largest_dropped=float(norms[~alive & (norms < threshold)].max(initial=0.0)),
        kept_for_width=int((alive & (norms < threshold) & graph.prunable).sum()),
        fold_seconds=seconds,
        **differences,
    )
    if prove:
        _check(report)
    return slim, report


def zero_dead_rows(model: nn.Module, graph: ChannelGraph, alive: np.ndarray) -> None:
    """Set the compactor rows of dead units to exactly zero, in place."""
    compactors = find_compactors(model)
    for site in graph.sites.values():
        dead = torch.from_numpy(np.flatnonzero(~alive[graph.present(site.units)]))
        if len(dead):
            with torch.no_grad():
                compactors[site.host].pwc.weight[dead] = 0.0


def fold(model: nn.Module, graph: ChannelGraph, alive: np.ndarray) -> nn.Module:
    """A copy of `model` with the channels of `alive` units only: float64, on the CPU, in eval mode, no compactors.

    Of `model` itself no more than a layer at a time is in float64. What a dead unit's compactor rows hold is no matter.
    """
    bias_from_dead = dead_constants(graph, model, alive) if not alive.all() else {}
    compactors = find_compactors(model)
    modules = dict(model.named_modules())
    tensors = named_tensors(model)
    replaced: dict[str, nn.Module] = {}
    vectors: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        folded_norms = {layer.norm for layer in graph.layers.values()}
        for layer in graph.layers.values():
            site = graph.sites.get(layer.name)
            compactor = compactors.get(site.host) if site else None
            if layer.has_width:
                from_dead = bias_from_dead.get(layer.name)
                if from_dead is not None:
                    from_dead = from_dead[torch.from_numpy(graph.outputs_left(layer))]
                replaced[layer.name] = _fold_layer(graph, layer, modules, compactor, alive, from_dead)
            elif layer.kind == "vector":
                vectors[layer.name] = _narrow_vector(graph, layer, tensors[layer.name], alive)
            elif layer.name in folded_norms or not alive[layer.out_units].any():
                replaced[layer.name] = copy.deepcopy(left_of_norm(modules[layer.name]))
            else:
                kept = _kept(graph, alive, layer.out_units)
                replaced[layer.name] = _narrow_norm(modules[layer.name], compactor, kept)
    # What is replaced or goes needs no copy: standing in for it in the memo keeps the copy small and fast.
    stand_ins = {id(modules[name]): module for name, module in replaced.items() if name in modules}
    stand_ins |= {id(tensors[name]): tensor for name, tensor in vectors.items()}
    stand_ins |= {id(compactor.pwc.weight): nn.Parameter(torch.empty(0)) for compactor in compactors.values()}
    folded = copy.deepcopy(model, stand_ins)
    remove_compactors(folded)
    for name in vectors:
        count_channels(folded.get_submodule(name.rpartition(".")[0]))
    return folded.cpu().double().eval()  # in that order: not all devices have float64


def _fold_layer(
    graph: ChannelGraph,
    layer: Layer,
    modules: dict[str, nn.Module],
    compactor: Compactor | None,
    alive: np.ndarray,
    from_dead: torch.Tensor | None,
) -> nn.Module:
    """K' = K gamma / sqrt(var + eps), b' = beta + (b - mean) gamma / sqrt(var + eps), K'' = Q K', b'' = Q b'."""
    module = modules[layer.name]
    weight, bias = _exact(module.weight), _exact(module.bias)
    if layer.kind == "transposed":
        weight = weight.transpose(0, 1)  # [out, in, ...]
    out_kept = _kept(graph, alive, layer.out_units)
    if from_dead is not None:
        bias = from_dead if bias is None else bias + from_dead
    if layer.kind in PRODUCERS:  # in the others a group goes with all its channels
        weight = weight[:, _kept(graph, alive, layer.in_units)]
    if layer.norm is not None:
        scale, shift = _norm_as_affine(modules[layer.norm])
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        bias = shift if bias is None else shift + bias * scale
    if compactor is not None:
        weight = _through(compactor, weight.flatten(1), out_kept).view(len(out_kept), *weight.shape[1:])
        bias = None if bias is None else _through(compactor, bias[:, None], out_kept)[:, 0]
    else:
        weight = weight[out_kept]
        bias = None if bias is None else bias[out_kept]
    if layer.kind == "transposed":
        weight = weight.transpose(0, 1).contiguous()
    return stand_in(layer, module, bias, alive) or _plain_layer(module, weight, bias)


def _through(compactor: Compactor, columns: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The kept rows of Q times `columns`, [D, n], for a dense or (block-)diagonal Q."""
    matrix = _exact(compactor.matrix)  # [D, D / groups]
    if compactor.pwc.groups == 1:
        return matrix[kept] @ columns
    groups, size = compactor.pwc.groups, matrix.shape[1]
    blocks = matrix.view(groups, size, size) @ columns.reshape(groups, size, columns.shape[1])  # [G, D / G, n]
    return blocks.flatten(0, 1)[kept]


def _plain_layer(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    bare = copy.copy(module)  # of its class and with its options, whatever arguments its constructor takes
    for name in ("_parameters", "_modules", "_forward_hooks", "_forward_pre_hooks"):
        bare.__dict__[name] = type(module.__dict__[name])()
    plain = copy.deepcopy(bare)
    trains = module.weight.requires_grad
    plain.weight = nn.Parameter(weight, requires_grad=trains)
    plain.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=trains))
    count_channels(plain)
    return plain


def _norm_as_affine(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """BN in eval mode as y = scale x + shift."""
    inverse = torch.rsqrt(_exact(norm.running_var) + norm.eps)
    scale = inverse if norm.weight is None else _exact(norm.weight) * inverse
    shift = -_exact(norm.running_mean) * scale
    return scale, shift if norm.bias is None else shift + _exact(norm.bias)


def _exact(tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else in_float64(tensor)


def _narrow_norm(norm: nn.Module, compactor: Compactor | None, kept: torch.Tensor) -> nn.Module:
    """A BN that stands alone, with the kept channels; a diagonal compactor behind it goes into its gamma and beta."""
    narrow = copy.deepcopy(norm)
    mean, variance, weight, bias = map(_exact, (norm.running_mean, norm.running_var, norm.weight, norm.bias))
    if compactor is not None:
        weight = torch.ones_like(mean) if weight is None else weight
        bias = torch.zeros_like(mean) if bias is None else bias
        weight, bias = (_exact(compactor.matrix)[:, 0] * value for value in (weight, bias))
        narrow.affine = True
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            trains = norm.weight is None or norm.weight.requires_grad
            setattr(narrow, name, nn.Parameter(value[kept], requires_grad=trains))
    narrow.running_mean, narrow.running_var = mean[kept], variance[kept]
    count_channels(narrow)
    return narrow


def _narrow_vector(graph: ChannelGraph, layer: Layer, tensor: torch.Tensor, alive: np.ndarray) -> torch.Tensor:
    kept = _kept(graph, alive, layer.out_units)
    kept = kept if len(kept) else torch.tensor([0])  # for `Gone`
    narrow = tensor.detach().cpu().index_select(layer.dim, kept)
    return nn.Parameter(narrow, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else narrow


def _kept(graph: ChannelGraph, alive: np.ndarray, units: np.ndarray) -> torch.Tensor:
    """The places of live units among those that are still in the model."""
    return torch.from_numpy(np.flatnonzero(alive[graph.present(units)]))


@dataclass(frozen=True)
class _Expected:
    """Inputs and what the unconverted model makes of them.

    trained, zeroed: outputs in float64, as trained and with the dead rows at zero; float32: the latter, in float32
    """

    inputs: list[torch.Tensor]
    trained: list[torch.Tensor]
    zeroed: list[torch.Tensor]
    float32: list[torch.Tensor]


def _expected(model: nn.Module, graph: ChannelGraph, alive: np.ndarray, example_inputs: Inputs) -> _Expected:
    """For this a copy of the model is in float64: the only one, gone before there is a folded one."""
    exact = exact_copy(model)
    inputs, trained = inputs_and_outputs(exact, example_inputs)
    zero_dead_rows(exact, graph, alive)
    zeroed = outputs_of(exact, inputs, torch.float64)
    return _Expected(inputs, trained, zeroed, float32=outputs_of(exact, inputs, torch.float32))


def _differences(expected: _Expected, folded: nn.Module) -> dict[str, float]:
    """The report's differences, by name."""
    exact = outputs_of(folded, expected.inputs, torch.float64)
    rounded = outputs_of(copy.deepcopy(folded), expected.inputs, torch.float32)
    return {
        "cut_difference": difference_of(expected.trained, expected.zeroed, rounded=True),
        "float64_difference": difference_of(expected.zeroed, exact),
        "float32_difference": difference_of(expected.zeroed, rounded, rounded=True),
        "float32_own_error": difference_of(expected.zeroed, expected.float32, rounded=True),
    }


def _check(report: ConversionReport) -> None:
    limits = {
        "float64_difference": FLOAT64_TOLERANCE,
        "float32_difference": max(FLOAT32_TOLERANCE, 4 * report.float32_own_error),
        "cut_difference": CUT_TOLERANCE,
    }
    for name, limit in limits.items():
        difference = getattr(report, name)
        if not difference <= limit:  # NaN fails as well
            raise ConversionError(
                f"the converted model is not equal to the trained one: {name} is {difference:.2e}, at most "
                f"{limit:.2e} is allowed. Nothing was written; please report the model."
            )
