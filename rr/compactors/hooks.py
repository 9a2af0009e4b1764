"""The pruner's part in a user's own loop: hooks around each step of the optimiser, and whether the loop can work."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rr.compactors.compactor import Compactor
from rr.errors import InputError
from rr.runtime import are_several

logger = logging.getLogger(__name__)


class StepHooks:
    """Calls before and after each step of an optimiser.

    Where `step` is given a closure, the closure makes the gradients, so `before` is called each time it returns.

    Args:
        before: called with the optimiser and what the gradients are multiplied by at present.
        after: called with the optimiser, but not for a step that a fused optimiser skipped for infinite gradients.
    """

    def __init__(
        self,
        before: Callable[[torch.optim.Optimizer, Tensor | float], None],
        after: Callable[[torch.optim.Optimizer], None],
    ) -> None:
        self._before, self._after = before, after
        self._handles: list[RemovableHandle] = []

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Hook this optimiser and no longer any other: no step is ever penalised twice."""
        self.remove()
        if not hasattr(type(optimizer).step, "hooked"):  # a class that doesn't call torch's own __init__
            optimizer._patch_step_function()
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def remove(self) -> None:
        """Leave the optimiser alone."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Adjust the gradients, or return the step's arguments with a closure that does."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._before(optimizer, _amp_scale(optimizer))
            return None

        def adjusted() -> Any:
            loss = closure()
            self._before(optimizer, _amp_scale(optimizer))
            return loss

        return (optimizer, adjusted, *args[2:]), {name: value for name, value in kwargs.items() if name != "closure"}

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        skipped = getattr(optimizer, "found_inf", None)  # set by GradScaler for a fused optimiser
        if skipped is None or not skipped:
            self._after(optimizer)


class StepWatch:
    """Notices, in the backward pass, that the compactors are trained by steps that nobody counts.

    That is so where an optimiser was made anew after it was attached, where a wrapper steps another one, or where none
    was attached: nothing would be pruned, and the end would be the first to know.

    Args:
        weight: one of the compactors' parameters.
    """

    _FEW, _MANY = 3, 100  # steps seen in the weight; backward passes without any, as accumulation seldom has

    def __init__(self, weight: nn.Parameter) -> None:
        self._counted_any = False
        self._passes = self._missed = 0
        self._seen: Tensor | int = weight.detach().clone()
        self._weight = weakref.ref(weight)
        self._handle = weight.register_post_accumulate_grad_hook(self._after_backward)

    def counted(self) -> None:
        """A step was counted: what the weight is now is all right."""
        self._counted_any, self._passes, self._missed = True, 0, 0
        weight = self._weight()
        self._seen = 0 if weight is None else weight._version

    def in_step(self) -> None:
        """An attached optimiser is at a step, which changes the weight between the calls of its closure (LBFGS)."""
        self._passes = self._missed = 0

    def stop(self) -> None:
        """Watch no longer."""
        self._handle.remove()

    def _after_backward(self, weight: Tensor) -> None:
        self._passes += 1
        if self._changed(weight):
            self._missed += 1
        if self._missed >= self._FEW:
            self.stop()
            raise InputError(
                f"the pruner hasn't seen the last {self._missed} steps of this training, so that nothing would be "
                "pruned: call pruner.attach(optimizer) with the very optimizer whose step() the loop calls, after it "
                "is wrapped and before its scheduler is built"
            )
        if self._passes == self._MANY and not self._counted_any:
            logger.warning(
                "%d backward passes, and the pruner has seen no step of an optimizer: has pruner.attach(optimizer) "
                "been called with the one whose step() the loop calls?",
                self._passes,
            )

    def _changed(self, weight: Tensor) -> bool:
        """Whether the weight is another one than at the last pass; some optimisers write past its version."""
        seen, self._seen = self._seen, weight._version if self._counted_any else weight.detach().clone()
        return seen != self._seen if self._counted_any else not torch.equal(seen, self._seen)


def check_counted(steps: int, *, nothing_goes: bool) -> None:
    """Check, at the end, that there was a training.

    Args:
        steps: the optimiser steps that were counted.
        nothing_goes: whether all channels stay.

    Raises:
        InputError: if no step was counted, and nothing is dead for another reason.
    """
    if steps == 0 and nothing_goes:
        raise InputError(
            "no step of an optimizer has been counted, and no channel is dead: call pruner.attach(optimizer) before "
            "training, with the optimizer whose step() the loop calls"
        )


def check_optimizer(
    optimizer: torch.optim.Optimizer,
    compactors: Mapping[str, Compactor],
    *,
    may_be_frozen: bool = False,
    narrows: bool = False,
) -> None:
    """Check that an optimiser can train the compactors.

    Args:
        optimizer: the optimiser.
        compactors: by host.
        may_be_frozen: whether they may be frozen, as those out of use are.
        narrows: whether parameters will lose channels while it trains them.

    Raises:
        InputError: if it has no hooks, as a wrapper of another optimiser may not, if it doesn't hold the compactors'
            parameters, if they are frozen and may not be, or if it can't follow a network that gets narrower.
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise InputError(
            f"{type(optimizer).__name__} isn't a torch.optim.Optimizer with hooks around its step: attach the "
            "optimizer that it wraps, after wrapping it"
        )
    if narrows and isinstance(optimizer, torch.optim.LBFGS):
        raise InputError(
            "LBFGS keeps one vector for all parameters, which can't follow a network that gets narrower: build the "
            "pruner with narrow='no', or take another optimizer"
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not all(id(compactor.pwc.weight) in held for compactor in compactors.values()):
        raise InputError(
            "the optimizer lacks the compactors: build it after the pruner, from pruner.param_groups(...) or from "
            "all of model.parameters()"
        )
    frozen = [host for host, compactor in compactors.items() if not compactor.pwc.weight.requires_grad]
    if frozen and not may_be_frozen:
        raise InputError(
            f"{len(frozen)} compactors are frozen ({frozen[0]}, ...): freeze the model's own layers before the "
            "pruner is built, and leave those that are not to be pruned out with `exclude`"
        )


def check_loop(weights: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Check, at the first step, that the loop trains the compactors as it should.

    Args:
        weights: the compactors' parameters, with their first gradients.
        optimizer: the one that is about to step.

    Raises:
        InputError: if they are in half precision, the loss reaches none of them, or the processes of a distributed run
            have different gradients.
    """
    dtype = weights[0].dtype
    if dtype in (torch.float16, torch.bfloat16):  # steps as small as a row's on its way to zero are rounded away
        raise InputError(
            f"the compactors are in {str(dtype).removeprefix('torch.')}, in which rows can't shrink to zero: keep "
            "the model in float32 and run it under torch.autocast"
        )
    others = (parameter for group in optimizer.param_groups for parameter in group["params"])
    if all(weight.grad is None for weight in weights) and any(other.grad is not None for other in others):
        raise InputError(
            "the loss reaches no compactor: train the very model that the pruner was built on, and call "
            "pruner.attach(optimizer) once this optimizer trains all of it (behind a warm-up of the head alone)"
        )
    if are_several() and not _gradients_agree(weights):
        raise InputError(
            "the compactors' gradients differ between the processes: wrap the model in DistributedDataParallel after "
            "the pruner is built, so that it knows of the compactors"
        )


def _gradients_agree(weights: Sequence[nn.Parameter]) -> bool:
    sums = [0.0 if weight.grad is None else weight.grad.abs().sum() for weight in weights]
    sums = torch.stack([torch.as_tensor(item).to(weights[0]) for item in sums]).nan_to_num()
    extremes = torch.stack([sums, -sums])
    dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
    return torch.allclose(extremes[0], -extremes[1], rtol=1e-3)


def _amp_scale(optimizer: torch.optim.Optimizer) -> Tensor | float:
    """The factor on the gradients while a fused optimiser unscales within its own step (GradScaler), else 1."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else scale
