"""How good a network is on the validation data."""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

from data import Data
from rr.errors import InputError
from training.distributed import World, all_reduce_sum, broadcast_buffers
from training.loss import logits_and_loss


@dataclass(frozen=True)
class Evaluation:
    """How good a network is on some examples.

    Attributes:
        top1, top5: accuracies in percent.
        loss: the mean per example.
        num: how many examples there are.
    """

    top1: float
    top5: float
    loss: float
    num: int

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"top1": self.top1, "top5": self.top5, "loss": self.loss, "num": self.num}


@dataclass(frozen=True)
class Paired:
    """Two networks on the same examples.

    Attributes:
        only_first: how many examples only the first one has right.
        only_second: how many only the second one has right.
        num: how many examples there are.
    """

    only_first: int
    only_second: int
    num: int

    @property
    def points(self) -> float:
        """By how many percentage points the second one's top-1 is higher."""
        return 100 * (self.only_second - self.only_first) / self.num

    @property
    def standard_error(self) -> float:
        """The standard error of `points`, as an estimate of its value on all images of which these are a sample.

        The formula is that of paired proportions (McNemar, Psychometrika 12, 1947); how much training with other seeds
        would differ is not included.
        """
        differ = self.only_first + self.only_second
        return 100 * math.sqrt(differ - (self.only_second - self.only_first) ** 2 / self.num) / self.num

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {**asdict(self), "points": self.points, "standard_error": self.standard_error}


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64 for sums over many examples; float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def hits_of(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which of the 5 largest logits (or of all, if there are fewer classes) is the label's: [n, 5] of bool.

    Args:
        logits: [n, classes].
        labels: [n].
    """
    return logits.topk(min(5, logits.shape[1]), dim=1).indices == labels.unsqueeze(1)


def batch_sums(hits: torch.Tensor, loss_sum: torch.Tensor) -> torch.Tensor:
    """[summed loss, hits in the first, hits among the first 5, examples], on the device, without waiting for it.

    Args:
        hits: [n, 5], as `hits_of` gives them.
        loss_sum: scalar, the loss summed over the examples.
    """
    sums = [loss_sum, hits[:, 0].sum(), hits.sum(), torch.full((), len(hits), device=hits.device)]
    return torch.stack([value.to(sum_dtype(hits.device)) for value in sums])


def to_evaluation(sums: list[float]) -> Evaluation:
    """Percentages and the mean loss, from `batch_sums` that were added up."""
    loss, top1, top5, num = sums
    return Evaluation(100 * top1 / num, 100 * top5 / num, loss / num, round(num))


_ONE_VALUE = "Expected more than 1 value per channel when training"  # how torch's batch norm says it


@torch.no_grad()
def check_fits(model: nn.Module, data: Data, *, trained_on: int = 0) -> None:
    """Check that the model takes the data set's images, and has as many outputs as there are classes.

    Args:
        model: the network, on the CPU; it stays as it is.
        data: the data set.
        trained_on: also let a copy of it take so many images at a time, 2 at most, in training mode, where some
            networks need more or larger ones, or return something that no loss is known for.

    Raises:
        InputError: if it doesn't.
    """
    parameter = next(model.parameters())
    images = torch.zeros(2, data.in_channels, data.image_size, data.image_size).to(parameter)
    sizes = f"{data.name}: {data.in_channels} channels, {data.image_size}x{data.image_size}, {data.num_classes} classes"
    was_training = model.training
    try:
        output = model.eval()(images[:1])
        if trained_on:
            labels = torch.zeros(2, dtype=torch.long, device=parameter.device)
            with torch.random.fork_rng(devices=[]):  # for dropout; the model is still on the CPU
                logits_and_loss(copy.deepcopy(model).train()(images[:trained_on]), labels[:trained_on])
    except ValueError as error:
        if not str(error).startswith(_ONE_VALUE):
            raise
        raise InputError(
            f"with {trained_on} of these images at a time ({sizes}) a batch norm of the network has a single value of "
            "each channel, and nothing to train on: take more images, a larger --image-size or --batch-size, fewer "
            "processes, or leave --accumulate out"
        ) from error
    except (RuntimeError, AssertionError) as error:  # torch._assert, in transformers of one size
        raise InputError(
            f"the network's forward fails on these images ({sizes}): {type(error).__name__}: {error}. If it wants "
            "images of another size choose that with --image-size, else correct its code"
        ) from error
    finally:
        model.train(was_training)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != (1, data.num_classes):
        raise InputError(f"the network gives {shape} for one image, not (1, {data.num_classes}) ({sizes})")


def evaluate(
    model: nn.Module,
    data: Data,
    world: World,
    *,
    batch_size: int,
    amp: bool = False,
    channels_last: bool = False,
) -> Evaluation:
    """Evaluate in eval mode, each validation example exactly once, divided among the processes.

    All processes use rank 0's buffers and get the same result. The model's training mode is restored afterwards.

    Args:
        model: the network, on the world's device.
        data: its validation images are used.
        world: the processes.
        batch_size: images at a time, on each process.
        amp: bfloat16 autocast.
        channels_last: whether images get the channels-last memory format.
    """
    (evaluation,), _ = _evaluate_all((model,), data, world, batch_size, amp, channels_last)
    return evaluation


def evaluate_pair(
    first: nn.Module,
    second: nn.Module,
    data: Data,
    world: World,
    *,
    batch_size: int,
    amp: bool = False,
    channels_last: bool = False,
) -> tuple[Evaluation, Evaluation, Paired]:
    """Evaluate two networks as `evaluate` does, in one pass over the data, and count where only one of them is right.

    Args:
        first, second: the networks.
        data, world, batch_size, amp, channels_last: as in `evaluate`.
    """
    models = (first, second)
    evaluations, right_alone = _evaluate_all(models, data, world, batch_size, amp, channels_last)
    only_first, only_second = (round(count) for count in right_alone)
    return *evaluations, Paired(only_first, only_second, data.num_val)


@torch.no_grad()
def _evaluate_all(
    models: Sequence[nn.Module], data: Data, world: World, batch_size: int, amp: bool, channels_last: bool
) -> tuple[list[Evaluation], list[float]]:
    """Each network's evaluation, and how many examples it alone has right."""
    for model in models:
        broadcast_buffers(world, model)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    were_training = [model.training for model in models]
    for model in models:
        model.eval()
    sums = torch.zeros(len(models), 5, dtype=sum_dtype(world.device), device=world.device)
    batches = data.val_batches(batch_size=batch_size, device=world.device, rank=world.rank, world_size=world.size)
    for batch in batches:
        images, all_hits = batch.images.contiguous(memory_format=memory_format), []
        for place, model in enumerate(models):
            with torch.autocast(world.device.type, torch.bfloat16, enabled=amp):
                logits = model(images).float()
            all_hits.append(hits_of(logits, batch.labels))  # [n, 5]
            loss_sum = F.cross_entropy(logits, batch.labels, reduction="sum")
            sums[place, :4] += batch_sums(all_hits[-1], loss_sum)
        right = torch.stack([hits[:, 0] for hits in all_hits])  # [models, n]
        sums[:, 4] += (right & (right.sum(0) == 1)).sum(1)
    for model, was_training in zip(models, were_training, strict=True):
        model.train(was_training)
    totals = all_reduce_sum(world, sums).tolist()
    evaluations = [to_evaluation(total[:4]) for total in totals]
    for evaluation in evaluations:
        assert evaluation.num == data.num_val, f"{evaluation.num} examples evaluated, {data.num_val} in the data"
    return evaluations, [total[4] for total in totals]
