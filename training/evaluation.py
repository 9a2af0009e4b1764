"""How good a network is on the validation data."""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from data import Data
from training.distributed import World, all_reduce_sum, broadcast_buffers
from training.loss import logits_and_loss


@dataclass(frozen=True)
class Evaluation:
    """top1 and top5 in percent, the mean loss per example, and the number of examples."""

    top1: float
    top5: float
    loss: float
    num: int

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"top1": self.top1, "top5": self.top5, "loss": self.loss, "num": self.num}


def sum_dtype(device: torch.device) -> torch.dtype:
    """float64 for sums over many examples; float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def batch_sums(logits: torch.Tensor, labels: torch.Tensor, loss_sum: torch.Tensor) -> torch.Tensor:
    """[summed loss, hits in the first, hits among the first 5 (or all, if fewer classes), examples], on the device.

    logits [n, classes], labels [n], loss_sum scalar. No synchronisation with the device.
    """
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices  # [n, 5]
    hits = ranked == labels.unsqueeze(1)
    sums = [loss_sum, hits[:, 0].sum(), hits.sum(), torch.full((), len(labels), device=logits.device)]
    return torch.stack([value.to(sum_dtype(logits.device)) for value in sums])


def to_evaluation(sums: list[float]) -> Evaluation:
    """Percentages and the mean from `batch_sums` that were added up."""
    loss, top1, top5, num = sums
    return Evaluation(100 * top1 / num, 100 * top5 / num, loss / num, round(num))


@torch.no_grad()
def check_fits(model: nn.Module, data: Data, *, for_training: bool = False) -> None:
    """Raise ValueError if the model can't take the data set's images, or hasn't as many outputs as it has classes.

    for_training: a copy of it takes a batch in training mode as well, where some networks want larger images, or return
    what no loss is known for. The model stays as it is.
    """
    parameter = next(model.parameters())
    images = torch.zeros(2, data.in_channels, data.image_size, data.image_size).to(parameter)
    sizes = f"{data.name}: {data.in_channels} channels, {data.image_size}x{data.image_size}, {data.num_classes} classes"
    was_training = model.training
    try:
        output = model.eval()(images[:1])
        if for_training:
            labels = torch.zeros(2, dtype=torch.long, device=parameter.device)
            with torch.random.fork_rng(devices=[]):  # for dropout; the model is still on the CPU
                logits_and_loss(copy.deepcopy(model).train()(images), labels)
    except (RuntimeError, AssertionError) as error:  # torch._assert, in transformers of one size
        raise ValueError(
            f"the network can't take these images ({sizes}): choose another --image-size ({error})"
        ) from error
    finally:
        model.train(was_training)
    shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if shape != (1, data.num_classes):
        raise ValueError(f"the network gives {shape} for one image, not (1, {data.num_classes}) ({sizes})")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    world: World,
    *,
    batch_size: int,
    amp: bool = False,
    channels_last: bool = False,
) -> Evaluation:
    """Evaluate in eval mode, each validation example exactly once, shared out over the processes.

    All processes use rank 0's buffers and get the same result. The model's training mode is as before afterwards.
    """
    broadcast_buffers(world, model)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    was_training = model.training
    model.eval()
    sums = torch.zeros(4, dtype=sum_dtype(world.device), device=world.device)
    batches = data.val_batches(batch_size=batch_size, device=world.device, rank=world.rank, world_size=world.size)
    for batch in batches:
        with torch.autocast(world.device.type, torch.bfloat16, enabled=amp):
            logits = model(batch.images.contiguous(memory_format=memory_format)).float()
        loss_sum = F.cross_entropy(logits, batch.labels, reduction="sum")
        sums += batch_sums(logits, batch.labels, loss_sum)
    model.train(was_training)
    evaluation = to_evaluation(all_reduce_sum(world, sums).tolist())
    assert evaluation.num == data.num_val, f"{evaluation.num} examples evaluated, {data.num_val} in the data"
    return evaluation
