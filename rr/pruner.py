"""ResRep as hooks on the user's own optimiser: gradient reset and penalty before each step, masks after it.

pruner = ResRepPruner(model, example_inputs, ResRepConfig(flops_target=0.455))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.01, momentum=0.9, weight_decay=1e-4), lr=0.01)
pruner.attach(optimizer)
...                               # the training loop, as it was
slim = pruner.convert()           # a plain, narrow nn.Module, proven equal
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.utils.hooks import RemovableHandle

from rr.compactors import Compactor, find_compactors
from rr.config import ResRepConfig
from rr.convert import alive_units, convert, unit_norms
from rr.costs import Target, multiples_in_units
from rr.graph import ChannelGraph, Site
from rr.masks import least_widths, select_forgotten
from rr.narrowing import Narrowing
from rr.rehearsal import rehearse, rehearse_vanishing
from rr.scores import TaylorScores, relative_unit_costs
from rr.tighten import tightened
from rr.trace import Inputs

logger = logging.getLogger(__name__)

# Rows are scaled by this power of two (exactly) before they are squared: norms from 1e-30 to 1e3 neither
# underflow nor overflow in float32.
_NORM_SCALE = 2.0**50
_SMALLEST_SCALED_NORM = 1e-20  # below every such norm, and far enough above 0 that nothing over it overflows


def param_groups(
    model: nn.Module, *, lr: float, momentum: float, weight_decay: float, bias_lr_factor: float = 2.0
) -> list[dict[str, object]]:
    """Parameters of a model without its compactors by kind: weights, BN weights, biases (paper's settings).

    Weight decay is for conv and linear weights alone; biases learn at `bias_lr_factor` times the rate.
    """
    of_compactors = {id(compactor.pwc.weight) for compactor in find_compactors(model).values()}
    kinds: dict[str, list[nn.Parameter]] = {"weights": [], "norms": [], "biases": []}
    seen = set(of_compactors)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            if name.endswith("bias"):
                kinds["biases"].append(parameter)
            else:
                kinds["norms" if isinstance(module, _BatchNorm) else "weights"].append(parameter)
    settings = {
        "weights": {"lr": lr, "weight_decay": weight_decay},
        "norms": {"lr": lr, "weight_decay": 0.0},
        "biases": {"lr": lr * bias_lr_factor, "weight_decay": 0.0},
    }
    return [
        {"params": parameters, "momentum": momentum, "name": kind, **settings[kind]}
        for kind, parameters in kinds.items()
        if parameters
    ]


class ResRepPruner:
    """Compactors in `model` (put there in place), the masks' schedule, and the gradients' reset and penalty.

    Raises ValueError, before any training, when the config has shares of a run, the model can't be traced, nothing is
    prunable, its forward counts channels itself, the given graph has other compactors than the config asks for, or the
    target can't be reached (saying what can). What replaces modules (SyncBatchNorm) comes before the pruner; what wraps
    the model (DistributedDataParallel, torch.compile, AveragedModel) comes after it.

    graph: what was traced; given, it takes the trace's place (rr.tables.TableGraph)
    steps: optimiser steps so far; target_met: the masked widths reach the target (each of them, where there are two)
    targets: what is to be reached, `flops_target` first
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Inputs,
        config: ResRepConfig | None = None,
        *,
        graph: ChannelGraph | None = None,
    ) -> None:
        if isinstance(model, DataParallel | DistributedDataParallel):
            raise ValueError("the model is wrapped already: build the pruner on the bare model, then wrap that")
        self.model = model
        self.example_inputs = example_inputs
        self.config = config or ResRepConfig()
        self.config.check_is_for_a_run()
        wanted = {"silence": self.config.narrow != "no", "diagonal": self.config.compactors == "diagonal"}
        if graph is not None and not all(getattr(graph, name) for name, on in wanted.items() if on):
            options = ", ".join(f"{name}=True" for name, on in wanted.items() if on)
            raise ValueError(f"the graph has other compactors than the config asks for: build it with {options}")
        self.graph = graph or ChannelGraph(model, example_inputs, **wanted)
        rehearse(model, self.graph, example_inputs, self._select(), max(self.config.num_at_least, 1))
        self.selected = self._select()  # without what that found
        self._least = np.full(len(self.graph.groups), max(self.config.num_at_least, 1))
        if self.config.num_at_least == 0:
            self._least[rehearse_vanishing(model, self.graph, example_inputs, self.selected)] = 0
        self.steps = 0
        self._waiting = 0  # rows walked at the last update whose layers lack others to complete a multiple
        self._prepare_selection()
        self._check_target()
        self.sites: list[Site] = self.graph.sites_of(self.selected)
        present = find_compactors(model)
        if present and set(present) != {site.host for site in self.sites}:
            raise ValueError("the model has compactors at other places: build the pruner on a model without any")
        self.compactors: dict[str, Compactor] = present or self.graph.insert_compactors(model, self.selected)
        torch.compiler.reset()  # what was compiled before would go on without the compactors
        self._hosts = {host: model.get_submodule(host) for host in self.compactors}
        self._optimizers: list[torch.optim.Optimizer] = []
        self._hooks: list[RemovableHandle] = []
        self._loop_is_checked = False
        self._weights = [self.compactors[site.host].pwc.weight for site in self.sites]
        self._narrowing = self._narrowing_of_config()
        self._taylor = TaylorScores(self.graph.num_units, self._weights[0]) if self.config.score == "taylor" else None
        self._prepare_rows()

    # The user's loop ------------------------------------------------------------------------------------------

    def param_groups(
        self, lr: float, momentum: float = 0.9, weight_decay: float = 1e-4, bias_lr_factor: float = 2.0
    ) -> list[dict[str, object]]:
        """Groups for torch.optim.SGD: weights, BN weights, biases and compactors, each with the paper's settings."""
        compactors = {
            "params": list(self._weights),
            "lr": lr * self.config.compactor_lr_factor,
            "momentum": self.config.compactor_momentum,
            "weight_decay": 0.0,
            "name": "compactors",
        }
        plain = param_groups(
            self.model, lr=lr, momentum=momentum, weight_decay=weight_decay, bias_lr_factor=bias_lr_factor
        )
        return [*plain, compactors]

    def attach(self, optimizer: torch.optim.Optimizer, *others: torch.optim.Optimizer) -> None:
        """Hook `optimizer.step`: reset and penalise gradients before it, count and update masks after it.

        Where `step` is handed a closure, that makes the gradients, so they are adjusted each time it returns. A second
        call moves the hooks to another optimiser: no step is ever penalised twice.
        others: optimisers of other parameters of the model, which `narrow` cuts as well; only the first has all
        compactors

        Raises ValueError when the optimiser doesn't hold the compactors' parameters, or they are frozen; and in the
        first step when the loop can't work: see `_check_loop`.
        """
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if not all(id(weight) in held for weight in self._weights):
            raise ValueError(
                "the optimizer lacks the compactors: build it after the pruner, from pruner.param_groups(...) or from "
                "all of model.parameters()"
            )
        frozen = [host for host, compactor in self.compactors.items() if not compactor.pwc.weight.requires_grad]
        if frozen and not self.retired:
            raise ValueError(
                f"{len(frozen)} compactors are frozen ({frozen[0]}, ...): freeze the model's own layers before the "
                "pruner is built, and leave those that are not to be pruned out with `exclude`"
            )
        for hook in self._hooks:
            hook.remove()
        self._loop_is_checked = False
        self._optimizers = [optimizer, *others]
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    @torch.no_grad()
    def adjust_gradients(self, scale: torch.Tensor | float = 1.0) -> None:
        """grad(q_i) = m_i dL/dq_i + lambda q_i / |q_i|, in place (0 for a row that is 0).

        lambda is `penalty`, for masked rows `masked_penalty` where that is given (none where the proximal step is it).
        A unit made by several layers has p rows, one mask bit and one norm: |q_i| is then the root mean square over
        its p rows, so that p = 1 is the paper's rule. A compactor that is frozen at present gets no gradient.
        scale: what the gradients are multiplied by at present.
        """
        weights = self._weights
        if self._penalised.device != weights[0].device:  # the model was moved after the pruner was built
            self._prepare_rows()
        for weight in weights:
            if weight.grad is None:  # not reached by this step's loss
                weight.grad = torch.zeros_like(weight)
        scaled = torch._foreach_mul(weights, _NORM_SCALE)
        norms = self._scaled_norms(scaled)
        masks = [self.compactors[site.host].mask.view(-1, 1, 1, 1) for site in self.sites]
        flat_masks = torch.cat(masks).flatten()
        factors = self._penalties(flat_masks, norms, scale).split(self._sizes)
        gradients = [weight.grad for weight in weights]
        if self._taylor is not None:
            self._taylor.observe(gradients, scaled, norms * scale, self._units, flat_masks)
        torch._foreach_mul_(gradients, masks)
        torch._foreach_mul_(scaled, [part.view(-1, 1, 1, 1) for part in factors])
        torch._foreach_add_(gradients, scaled)
        for weight in weights:
            if not weight.requires_grad:  # a penalty without the task's part would only wipe it out
                weight.grad = None

    def _penalties(self, masks: torch.Tensor, scaled_norms: torch.Tensor, scale: torch.Tensor | float) -> torch.Tensor:
        """[rows]: lambda of each row times `scale`, over its scaled norm."""
        config = self.config
        factors = config.penalty * scale / scaled_norms
        if config.proximal:
            factors = factors * masks
        elif config.masked_penalty is not None:
            factors = torch.where(masks == 0, config.masked_penalty * scale / scaled_norms, factors)
        return factors * self._penalised

    def _scaled_norms(self, scaled: Sequence[torch.Tensor]) -> torch.Tensor:
        """[rows]: the norm of each row's unit, times `_NORM_SCALE`, of weights that are multiplied by that."""
        squares = torch.cat([part.flatten(1).square().sum(1) for part in scaled])
        if self._rows_share_units:
            per_unit = squares.new_zeros(self._unit_rows.numel()).index_add_(0, self._row_units, squares)
            squares = (per_unit / self._unit_rows)[self._row_units]
        return squares.sqrt().clamp_min(_SMALLEST_SCALED_NORM)

    @torch.no_grad()
    def shrink_masked(self, optimizer: torch.optim.Optimizer) -> None:
        """q_i <- q_i max(0, 1 - t / |q_i|) for masked rows: the proximal step of the penalty (`proximal=True`).

        t = lr lambda / (1 - m), what the penalty's gradient moves a row by at each step of SGD under momentum m, with
        the learning rate that `optimizer` has for the compactor at present and the config's `compactor_momentum`,
        whatever the optimiser; lambda is `masked_penalty`, or `penalty` where that isn't given. The gradient overshoots
        and leaves rows swinging around zero by as much; this ends at zero and stays there.
        """
        weights = self._weights
        config = self.config
        penalty = config.penalty if config.masked_penalty is None else config.masked_penalty
        rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
        norms = self._scaled_norms(torch._foreach_mul(weights, _NORM_SCALE)) / _NORM_SCALE
        of_weights = [rates.get(id(weight), 0.0) for weight in weights]
        rate = of_weights[0]
        if any(other is not rate and other != rate for other in of_weights):
            sizes = zip(of_weights, self._sizes, strict=True)
            rate = torch.cat([norms.new_full((size,), float(value)) for value, size in sizes])
        travel = rate * penalty / (1 - config.compactor_momentum)
        masks = torch.cat([self.compactors[site.host].mask for site in self.sites])
        kept = torch.where(masks == 0, (1 - travel / norms).clamp_min(0.0), 1.0).split(self._sizes)
        torch._foreach_mul_(weights, [part.view(-1, 1, 1, 1) for part in kept])

    def after_step(self) -> None:
        """Count an optimiser step; update the masks when that is due."""
        self.steps += 1
        if self.masks_are_due():
            self.update_masks()

    def masks_are_due(self) -> bool:
        """Whether the step counted last is one after which the masks are updated; none is when pruning is over."""
        since = self.steps - self.config.before_mask_iters
        return not self.retired and since > 0 and since % self.config.mask_interval == 0

    def update_masks(self) -> None:
        """Choose the units to forget by their scores, afresh for all (section 3.3); the same on every rank.

        So many that the target is met, or today's where it tightens; else `begin_granularity` more than the last time.
        Rows that wait for others to complete a multiple of widths count as if forgotten in what the next update may
        walk: a walk that stopped at them would never get on.
        """
        targets, limit = self.targets, len(self._candidates)
        if self.config.tighten_steps:
            since = self.steps - self.config.before_mask_iters
            targets = [tightened(target, since / self.config.tighten_steps) for target in targets]
        else:
            already = int((~self.masked_alive()[self._candidates]).sum())
            limit = already + self._waiting + self.config.begin_granularity
        forgotten, walked = select_forgotten(
            self.candidate_scores(),
            self._candidate_groups,
            self.graph.macs.group_sizes,
            lambda widths: all(target.met(widths) for target in targets),
            min_width=self._least,
            limit=limit,
            multiples=self._multiples,
        )
        self._waiting = walked - int(forgotten.sum())
        alive = np.ones(self.graph.num_units, dtype=bool)
        alive[self._candidates[forgotten]] = False
        alive &= ~self.graph.removed
        self._set_masks(alive)
        if not _distributed() or dist.get_rank() == 0:
            ratio = self.masked_macs_ratio
            logger.debug(
                "step %d: %d of %d rows forgotten, %.4f of the MACs", self.steps, forgotten.sum(), len(forgotten), ratio
            )

    @property
    def narrow_is_due(self) -> bool:
        """Whether there may be something for `narrow` to do: masks were updated, or what a fold needs is measured."""
        return self._narrowing is not None and (self.masks_are_due() or self._narrowing.is_measured)

    @torch.no_grad()
    def narrow(self, also: Sequence[nn.Module] = ()) -> int:
        """Take masked units that have died out of the model and its optimiser; returns how many units and outputs went.

        Between steps, and before the next forward pass: a unit with a norm under `narrow_threshold` is set to zero, and
        goes with the columns that read it, the channels of layers between, its optimiser's numbers and its mask. The
        training function stays what it is with that unit at zero. With narrow='full' compactors are folded when enough
        of their layer's outputs are dead (rr.refold): one call has what that needs measured in the training steps that
        follow, the next one folds. When nothing more is to die, all are folded, and training goes on with the plain
        narrow network. Parameters stay the same objects with fewer numbers; what wraps the model
        (DistributedDataParallel) is to be built anew where any went. The same on every rank.
        also: copies of the model that follow it (an average of its weights: `AveragedModel.module`)
        """
        if self._narrowing is None:
            raise ValueError("channels can be taken out only with ResRepConfig(narrow='rows') or 'full'")
        gone = self._narrowing.narrow(~self.masked_alive(), self.target_met, self._optimizers, also)
        if gone:
            self._sites_changed()
        return gone

    @property
    def retired(self) -> bool:
        """Whether pruning is over and the compactors are out of use (`narrow='full'`)."""
        return self._narrowing is not None and self._narrowing.retired

    @property
    def settled(self) -> bool:
        """Whether all channels that are to go in mid-run are gone, or none will: the time to compile a network."""
        return self._narrowing is None or self._narrowing.is_settled(~self.masked_alive(), self.target_met)

    def _sites_changed(self) -> None:
        self.sites = [
            replace(site, units=self.graph.present(site.units)) for site in self.graph.sites_of(self.selected)
        ]
        self._prepare_rows()

    # Where it stands ------------------------------------------------------------------------------------------

    def masked_alive(self) -> np.ndarray:
        """[num_units] of bool: units whose mask says keep, and all that are not pruned."""
        alive = np.ones(self.graph.num_units, dtype=bool)
        for site in self.sites:
            alive[site.units[self.compactors[site.host].mask.detach().cpu().numpy() == 0]] = False
        return alive & ~self.graph.removed

    def remaining_alive(self) -> np.ndarray:
        """[num_units] of bool: units that a conversion would keep now (norm at or over the threshold)."""
        norms = unit_norms(self.graph, self.compactors)
        return alive_units(self.graph, norms, self.config.threshold, self._least, self.config.width_multiple)

    def candidate_norms(self) -> np.ndarray:
        """[candidates], the norm of every unit that may be forgotten."""
        return unit_norms(self.graph, self.compactors)[self._candidates]

    def candidate_scores(self) -> np.ndarray:
        """[candidates], what mask selection ranks the units by that may be forgotten: the lowest go first."""
        scores = unit_norms(self.graph, self.compactors)
        if self._taylor is not None:
            scores = self._taylor.scores(scores)
        scores = scores[self._candidates]
        if self.config.per_mac:
            widths = self.graph.macs.group_widths(self.masked_alive())
            costs = relative_unit_costs(self.graph.macs, widths, self._candidate_groups)
            scores = scores / (costs if self._taylor is None else np.sqrt(costs))
        scores[self.graph.removed[self._candidates]] = -1.0  # before what is zero, too, and still there
        return scores

    @property
    def masked_macs_ratio(self) -> float:
        """MACs of the masked widths over the full network's."""
        return self.graph.macs(self.masked_alive()) / self.full_macs

    @property
    def remaining_macs_ratio(self) -> float:
        """MACs that a conversion would leave now, over the full network's."""
        return self.graph.macs(self.remaining_alive()) / self.full_macs

    @property
    def masked_params_ratio(self) -> float:
        """Parameters of the masked widths, as converted, over the full network's."""
        return self.graph.parameters(self.masked_alive()) / self.graph.parameters.full

    @property
    def remaining_params_ratio(self) -> float:
        """Parameters that a conversion would leave now, over the full network's."""
        return self.graph.parameters(self.remaining_alive()) / self.graph.parameters.full

    @property
    def target_met(self) -> bool:
        """Whether the masked widths reach every target."""
        return not self._missed(self.graph.macs.group_widths(self.masked_alive()))

    # The end, and across a restart ----------------------------------------------------------------------------

    def convert(self, *, prove: bool = True) -> nn.Module:
        """The plain, narrow model, proven equal; what was done and shown stands in `self.report`."""
        slim, self.report = convert(
            self.model,
            self.graph,
            self.example_inputs,
            threshold=self.config.threshold,
            min_width=self._least,
            width_multiple=self.config.width_multiple,
            prove=prove,
        )
        widths = self.graph.macs.group_widths(self.remaining_alive())
        if goals := self._missed(widths):
            masked = ~self.masked_alive() & ~self.graph.removed
            left = int((masked & (unit_norms(self.graph, self.compactors) >= self.config.threshold)).sum())
            logger.warning(
                "%s not reached, %s remain: %s. Train for longer, or with a larger masked_penalty",
                goals,
                self._costs(widths),
                f"{left} masked rows aren't dead yet" if left else "too few rows are masked yet",
            )
        return slim

    def state_dict(self) -> dict[str, Any]:
        """What the model's own state dict doesn't hold (masks and compactors are in that)."""
        state: dict[str, Any] = {"steps": self.steps, "waiting": self._waiting}
        if self._taylor is not None:
            state["taylor"] = self._taylor.state_dict()
        return state | (self._narrowing.state_dict() if self._narrowing else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict()`; load the model's and the optimiser's own states as well, after this.

        With `narrow` the model gets the widths that it had, so that those states fit.
        """
        self.steps = int(state["steps"])
        self._waiting = int(state.get("waiting", 0))  # older states have none, and no multiples to wait for
        if self._taylor is not None and "taylor" in state:
            self._taylor.load_state_dict(state["taylor"])
        if self._narrowing is not None:
            self._narrowing.load_state_dict(state, self._optimizers)
            self._sites_changed()

    # The hooks ------------------------------------------------------------------------------------------------

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """A step's pre-hook: gradients adjusted, or the arguments of the step with a closure that does it."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._check_and_adjust(optimizer)
            return None

        def adjusted() -> Any:
            loss = closure()
            self._check_and_adjust(optimizer)
            return loss

        return (optimizer, adjusted, *args[2:]), {name: value for name, value in kwargs.items() if name != "closure"}

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """A step's post-hook: the step counted, unless a fused optimiser left it out for infinite gradients."""
        skipped = getattr(optimizer, "found_inf", None)  # GradScaler's word to a fused optimiser
        if skipped is None or not skipped:
            if self.config.proximal and not self.retired:
                self.shrink_masked(optimizer)
            self.after_step()

    def _check_and_adjust(self, optimizer: torch.optim.Optimizer) -> None:
        if self.retired:
            return
        if not self._loop_is_checked:
            self._check_loop(optimizer)
            self._loop_is_checked = True
        self.adjust_gradients(_amp_scale(optimizer))

    def _check_loop(self, optimizer: torch.optim.Optimizer) -> None:
        """Raise ValueError where the first step shows that the loop doesn't train the compactors as it should.

        That is when their modules have been replaced, they are in half precision, the loss reaches none of them, or the
        processes of a distributed run have different gradients.
        """
        replaced = [host for host, module in self._hosts.items() if self.model.get_submodule(host) is not module]
        if replaced:
            raise ValueError(
                f"{replaced[0]!r} is another module than when the pruner was built, and its compactor isn't called any "
                "more: replace modules (SyncBatchNorm.convert_sync_batchnorm) before the pruner is built"
            )
        dtype = self._weights[0].dtype
        if dtype in (torch.float16, torch.bfloat16):  # steps as small as a row's way to zero has are rounded away
            raise ValueError(
                f"the compactors are in {str(dtype).removeprefix('torch.')}, in which rows can't shrink to zero: keep "
                "the model in float32 and run it under torch.autocast"
            )
        others = (parameter for group in optimizer.param_groups for parameter in group["params"])
        if all(weight.grad is None for weight in self._weights) and any(other.grad is not None for other in others):
            raise ValueError("the loss reaches no compactor: train the very model that the pruner was built on")
        if _distributed():
            sums = [0.0 if weight.grad is None else weight.grad.abs().sum() for weight in self._weights]
            sums = torch.stack([torch.as_tensor(item).to(self._weights[0]) for item in sums]).nan_to_num()
            extremes = torch.stack([sums, -sums])
            dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
            if not torch.allclose(extremes[0], -extremes[1], rtol=1e-3):
                raise ValueError(
                    "the compactors' gradients differ between the processes: wrap the model in "
                    "DistributedDataParallel after the pruner is built, so that it knows of the compactors"
                )

    # Preparation ----------------------------------------------------------------------------------------------

    def _select(self) -> np.ndarray:
        return self.graph.select(self.config.layers, self.config.include, self.config.exclude)

    def _prepare_selection(self) -> None:
        self._candidates = np.flatnonzero(self.selected)
        self._candidate_groups = self.graph.macs.group_of_unit[self._candidates]
        self._multiples = multiples_in_units(self.graph, self.config.width_multiple)
        self.full_macs = self.graph.macs.full
        settings = (
            ("flops_target", self.config.flops_target, self.graph.macs, "MACs"),
            ("params_target", self.config.params_target, self.graph.parameters, "parameters"),
        )
        self.targets = [Target(name, value, cost, noun) for name, value, cost, noun in settings if value is not None]

    def _narrowing_of_config(self) -> Narrowing | None:
        if self.config.narrow == "no":
            return None
        return Narrowing(
            self.model,
            self.graph,
            self.example_inputs,
            threshold=self.config.narrow_threshold,
            fold_share=self.config.fold_share if self.config.narrow == "full" else None,
            least=self._least,
            multiples=self._multiples,
        )

    def _check_target(self) -> None:
        least = least_widths(
            self._candidate_groups,
            self.graph.macs.group_sizes,
            min_width=self._least,
            multiples=self._multiples,
        )
        if goals := self._missed(least):
            floor = f"num_at_least = {self.config.num_at_least}"
            if self.config.width_multiple > 1:
                floor += f" (in multiples of {self.config.width_multiple})"
            raise ValueError(
                f"{goals} can't be reached: with every chosen layer at {floor}, {self._costs(least)} remain. "
                "Raise the target, or let more layers be pruned (layers='all')."
            )

    def _missed(self, widths: np.ndarray) -> str:
        """The settings that these widths ([groups]) don't reach, with their values; "" if there is none."""
        return " and ".join(f"{target.name} {target.value:g}" for target in self.targets if not target.met(widths))

    def _costs(self, widths: np.ndarray) -> str:
        """What is left of all that has a target."""
        return " and ".join(target.describe(widths) for target in self.targets)

    def _prepare_rows(self) -> None:
        """Where each compactor row's unit is, on the compactors' device."""
        device = self._weights[0].device
        units = np.concatenate([site.units for site in self.sites])
        distinct, positions, counts = np.unique(units, return_inverse=True, return_counts=True)
        self._units = torch.from_numpy(units).to(device)
        if self._taylor is not None:
            self._taylor.to(device)
        self._sizes: Sequence[int] = [len(site.units) for site in self.sites]
        self._rows_share_units = len(distinct) < len(units)
        self._row_units = torch.from_numpy(positions).to(device)
        self._unit_rows = torch.from_numpy(counts).to(device, self._weights[0].dtype)
        self._penalised = torch.from_numpy(self.selected[units]).to(device, self._weights[0].dtype)

    def _set_masks(self, alive: np.ndarray) -> None:
        bits = torch.from_numpy(np.concatenate([alive[site.units] for site in self.sites]))
        bits = bits.to(self._weights[0].device, self._weights[0].dtype)
        if _distributed():
            dist.broadcast(bits, src=0)  # rank 0 decides, so the ranks can never part
        for site, part in zip(self.sites, bits.split(list(self._sizes)), strict=True):
            self.compactors[site.host].mask.copy_(part)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _amp_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | float:
    """The factor on the gradients while a fused optimiser unscales within its own step (GradScaler), else 1."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else scale
