"""A teacher's part in a step's loss: its softened answers, and what its modules return, less and less."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rr.errors import InputError
from training.loss import distilled, widened
from training.recipe import Recipe

_LEAST = 0.01  # of the mean variance: what a channel that hardly varies counts as


class KeptOutputs:
    """Within the context, what some modules return is kept, in the order in which they are called.

    The hooks are there during a forward pass alone, so that whoever copies or rebuilds the network finds none. A
    compiled network has in it what hooks it was first called with: it must be called within the context each time.

    Args:
        model: the plain network.
        names: of modules in it, each of which is called once.

    Attributes:
        found: [n, C, ...] of each, of the last pass.

    Raises:
        InputError: if it has no such module.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        modules = dict(model.named_modules())
        for name in names:
            if name not in modules:
                children = ", ".join(child for child, _ in model.named_children())
                raise InputError(f"distill_outputs: the network has no module '{name}'; it has {children}")
        self._model, self._names = model, names
        self._handles: list[RemovableHandle] = []
        self.found: list[Tensor] = []

    def __enter__(self) -> None:
        self.found.clear()
        self._handles = [self._model.get_submodule(name).register_forward_hook(self._keep) for name in self._names]

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.found.append(output)


@dataclass(frozen=True)
class Stages:
    """Modules of a network and of its teacher, which are to return the same.

    Attributes:
        student, teacher: their outputs.
    """

    student: KeptOutputs
    teacher: KeptOutputs

    def error(self) -> Tensor:
        """The mean over the modules of `outputs_error`, of the last passes.

        Raises:
            InputError: if their outputs differ in shape.
        """
        pairs = list(zip(self.student.found, self.teacher.found, strict=True))
        for number, (own, taught) in enumerate(pairs):
            if own.shape != taught.shape:
                raise InputError(
                    f"distill_outputs: output {number} is {tuple(own.shape)} in the network and {tuple(taught.shape)} "
                    "in its teacher: name modules whose outputs aren't pruned, the ends of stages where layers is "
                    "'internal'"
                )
        return torch.stack([outputs_error(own, taught) for own, taught in pairs]).mean()


def outputs_error(own: Tensor, taught: Tensor) -> Tensor:
    """The mean squared difference over the variance of the teacher's channel in the batch, in float32 or wider.

    Args:
        own, taught: the student's output and the teacher's, [n, C, ...].
    """
    own, taught = widened(own), widened(taught)
    dims = [0, *range(2, taught.dim())]
    variance = taught.var(dims, correction=0, keepdim=True)  # [1, C, 1, ...]
    scale = variance.clamp_min(_LEAST * variance.mean()).clamp_min(torch.finfo(torch.float32).tiny)
    return ((own - taught).square() / scale).mean()


@dataclass(frozen=True)
class Lesson:
    """What a teacher adds to a step.

    Attributes:
        teaching: the teacher as a step calls it; None once it has left.
        stages: modules that are to return what its own do, if any.
        left: how much of its time is left, from 1 to 0: what the stages' errors are multiplied by.
    """

    teaching: nn.Module | None
    stages: Stages | None = None
    left: float = 1.0

    @property
    def watching(self) -> AbstractContextManager[None]:
        """Within it the student runs: its modules' outputs are kept."""
        return self.stages.student if self.stages else nullcontext()

    def loss(
        self, loss: Tensor, logits: Tensor, images: Tensor, recipe: Recipe, precision: AbstractContextManager[object]
    ) -> Tensor:
        """The step's loss with the teacher's part in it.

        Args:
            loss: the labels' own.
            logits: the student's, [n, classes], of a pass within `watching`.
            images: [n, C, H, W], those that the student has seen.
            recipe: how much which part counts.
            precision: that the teacher is run in.
        """
        if self.teaching is None:
            return loss
        with torch.no_grad(), precision, self.stages.teacher if self.stages else nullcontext():
            taught = self.teaching(images)  # [n, classes]
        loss = distilled(loss, logits, taught, recipe.distill, recipe.temperature)
        if self.stages is not None:
            loss = loss + recipe.distill_outputs_weight * self.left * self.stages.error()
        return loss


NO_LESSON = Lesson(None)
