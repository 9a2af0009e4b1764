"""A conversion before any training, with channels dead at random places: what can't be narrowed is known beforehand.

A trace can't tell a size that the forward computes (`x.shape[1]`) from one that is written into it (`x.view(-1, 400)`,
`x[:, :24]`). So copies of the network with fewer channels are run, and compared with the full one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rr.compactors import insert_compactors, remove_compactors
from rr.conversion.folding import fold
from rr.conversion.proof import FLOAT64_TOLERANCE, Probe, exact_copy, measured_probes, outputs_of
from rr.errors import InputError, first_line
from rr.graph import ChannelGraph, Group, Inputs, LiveModel
from rr.graph.dead_constants import UnfoldableError
from rr.graph.vanishing import may_vanish, without_unread

logger = logging.getLogger(__name__)

SHARES = 0.3, 0.7  # of a group's units that are dead, from and to
TAKE_SIZES = "take sizes from tensors (x.shape[1], x.flatten(1)), not from numbers"
COUNT_NO_CHANNELS = (
    f"{TAKE_SIZES}, and let no number depend on how many channels there are (x * x.shape[1] ** -0.5, random ones)"
)
SAME_LAYERS = f"{TAKE_SIZES}, and let the same layers run at all sizes of the input"
SAME_AT_ALL_SIZES = "let it compute the same at all sizes"
ASK_NO_MODULE = (
    "let the forward ask nothing of its modules (isinstance(self.bn, nn.BatchNorm2d), self.bn.weight), since an "
    "nn.Identity stands for a batch norm that was folded into the layer before it"
)
Failure = Callable[[Sequence[Group]], str | None]


def rehearse(
    model: nn.Module, graph: ChannelGraph, example_inputs: Inputs, selected: np.ndarray, min_width: int = 1
) -> ChannelGraph:
    """The graph, in which what fails or computes something else with fewer channels is unprunable, with the reason.

    Args:
        model: the network; it stays as it is.
        graph: its graph.
        example_inputs: what it is called with.
        selected: [num_units] of bool; about half of them are dead in the rehearsal.
        min_width: units that each group keeps at least.
    """

    def about_half(tried: Sequence[Group]) -> np.ndarray:
        alive = np.ones(graph.num_units, dtype=bool)
        for group in tried:  # each at other places, of another width: two that ought to be one would seem to agree
            random = np.random.default_rng(group.units[0])
            units = random.permutation(group.units[selected[group.units]])
            dead = round(random.uniform(*SHARES) * len(units))
            alive[units[: min(dead, max(len(group.units) - min_width, 0))]] = False
        return alive

    failure = _failure(model, graph, example_inputs, selected, about_half)
    groups = [group for group in graph.groups if selected[group.units].any()]
    groups.sort(key=lambda group: (group.units[0] in graph.counted, _kind(group)))
    suspects = sum(group.units[0] in graph.counted for group in groups)
    if not groups or (reason := failure(groups)) is None:
        return graph
    if (unlike := failure([])) is not None:  # whatever channels there are
        found = [(group, unlike) for group in groups]
    else:
        found = _halves_at_fault(groups, reason, failure, suspects)
    reasons: dict[int, str] = {}
    for group, reason in found:
        logger.warning("%s stays as wide as it is: %s", ", ".join(group.producers), reason)
        reasons |= dict.fromkeys(group.units.tolist(), reason)
    return graph.with_reasons(reasons)


def _kind(group: Group) -> str:
    """The name of its first layer without numbers: of the blocks of a network, all are at fault or none mostly."""
    return re.sub(r"\d+", "", group.producers[0])


def rehearse_vanishing(
    model: nn.Module, graph: ChannelGraph, example_inputs: Inputs, selected: np.ndarray
) -> np.ndarray:
    """[groups] of bool: the groups of which no unit has to stay (`may_vanish`), as far as the forward allows it.

    Args:
        model, graph, example_inputs: as in `rehearse`.
        selected: [num_units] of bool, the units that may go at all.
    """
    vanishing = may_vanish(graph, selected)
    groups = [group for group, vanishes in zip(graph.groups, vanishing, strict=True) if vanishes]

    def without(tried: Sequence[Group]) -> np.ndarray:
        alive = np.ones(graph.num_units, dtype=bool)
        for group in tried:
            alive[group.units] = False
        return without_unread(graph, alive, selected)

    for group, reason in at_fault(groups, _failure(model, graph, example_inputs, selected, without)):
        logger.info("%s keeps a channel: %s", ", ".join(group.producers), reason)
        vanishing[graph.macs.group_of_unit[group.units]] = False
    return vanishing


def _failure(
    model: nn.Module,
    graph: ChannelGraph,
    example_inputs: Inputs,
    selected: np.ndarray,
    alive_without: Callable[[Sequence[Group]], np.ndarray],
) -> Failure:
    """A function that converts a copy of `model` for some groups, and says what goes wrong and what helps."""
    full, probes = _as_training_may_leave_it(model, example_inputs)
    channels = {site.host: len(site.units) for site in graph.sites_of(selected)}
    compactors = insert_compactors(full, channels, groups=channels)  # diagonal: in float64, dense ones may be too large
    live = LiveModel(full, graph)

    def failure(tried: Sequence[Group]) -> str | None:
        how, advice = ("with fewer channels", TAKE_SIZES) if tried else ("once layers are folded", ASK_NO_MODULE)
        alive = alive_without(tried)
        for compactor in compactors.values():
            nn.init.ones_(compactor.pwc.weight)
        live.zero_dead_rows(alive)
        try:
            narrow = fold(live, alive)
        except UnfoldableError as error:
            return str(error)  # why no bias can hold it
        except Exception as error:  # whatever a user's class raises when a copy of it is narrowed
            return f"it can't be made narrower ({first_line(error)}): {advice}"
        for probe in probes:
            where = "" if probe is probes[0] else f" at inputs of {probe.shape}"
            try:  # the narrow one first: where its forward fails, the full one needn't run
                outputs = outputs_of(narrow, probe.inputs, torch.float64)
                zeroed = replace(probe, outputs=outputs_of(full, probe.inputs, torch.float64))
                difference = zeroed.difference(outputs)
            except Exception as error:  # whatever the user's forward raises, it means the same
                helps = SAME_LAYERS if tried and where else advice
                return f"its forward fails {how}{where} ({first_line(error)}): {helps}"
            if not difference <= FLOAT64_TOLERANCE:
                if tried and where:
                    what = "what its forward makes of fewer channels depends on the size of its input"
                    return f"{what}: wrong{where}: {SAME_AT_ALL_SIZES}"
                return f"its forward does something else {how}: {COUNT_NO_CHANNELS if tried else advice}"
        return None

    return failure


def _as_training_may_leave_it(model: nn.Module, example_inputs: Inputs) -> tuple[nn.Module, list[Probe]]:
    """A copy in float64 without compactors, with other values where the model has those that a network begins with.

    What is multiplied by a gain of zeros shows in no output yet, nor what is added to by a shift of zeros.

    Returns:
        The copy and its probes; where its outputs have NaN for other values, the copy is as the model is.
    """
    full = exact_copy(model)
    remove_compactors(full)
    generator = torch.Generator().manual_seed(0)
    trained = [parameter for parameter in full.parameters() if parameter.requires_grad]
    norms = [module for module in full.modules() if isinstance(module, _BatchNorm)]
    statistics = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    with torch.no_grad():
        for tensor in (*trained, *statistics):
            if tensor.is_floating_point() and tensor.numel() and (tensor == tensor.flatten()[0]).all():
                tensor += 0.1 * (0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))
    try:
        return full, measured_probes(full, example_inputs)
    except InputError:
        full = exact_copy(model)
        remove_compactors(full)
        return full, measured_probes(full, example_inputs)


def at_fault(groups: Sequence[Group], failure: Failure) -> list[tuple[Group, str]]:
    """The groups with which a rehearsal fails, found by halving: few rehearsals where few are at fault.

    Args:
        groups: the groups.
        failure: rehearses some of them, and says what goes wrong.
    """
    reason = failure(groups) if groups else None
    return [] if reason is None else _halves_at_fault(groups, reason, failure)


def _halves_at_fault(
    groups: Sequence[Group], reason: str, failure: Failure, suspects: int = 0
) -> list[tuple[Group, str]]:
    """Those at fault among groups whose rehearsal has failed.

    Args:
        groups: the groups.
        reason: what went wrong with them all.
        failure: as in `at_fault`.
        suspects: how many at the end of the list are likelier to be at fault; the first cut is before them.
    """
    if len(groups) == 1:
        return [(groups[0], reason)]
    middle = len(groups) - suspects if 0 < suspects < len(groups) else len(groups) // 2
    found = at_fault(groups[:middle], failure) + at_fault(groups[middle:], failure)
    return found or [(group, reason) for group in groups]  # they fail only together
