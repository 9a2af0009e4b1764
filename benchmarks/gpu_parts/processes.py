"""One process of a process group: NCCL's collectives, DistributedDataParallel with the pruner, SyncBN."""

from __future__ import annotations

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu_parts.attempt import attempted
from benchmarks.gpu_parts.pruning_steps import PruningSteps
from benchmarks.gpu_parts.setting import Figures, Setting
from training import init_world

STEPS = 15


def measure(setting: Setting) -> Figures:
    """The same steps without a process group, and as the only process of one (Gloo on a CPU)."""
    device = init_world(setting.device).device
    arch, batch = ("src8", 8) if setting.dry_run else ("src20", 64)
    alone = weights_after(PruningSteps(arch, batch, device))
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        found = {
            "backend": backend,
            "collectives": attempted(lambda: collectives(device)),
            "DistributedDataParallel": attempted(
                lambda: difference(weights_after(wrapped(PruningSteps(arch, batch, device))), alone)
            ),
        }
        if device.type == "cuda":  # torch has SyncBN there alone
            found["SyncBN"] = attempted(lambda: sync_bn(device))
    finally:
        distributed.destroy_process_group()
    return found


def collectives(device: torch.device) -> Figures:
    """What the loop and the pruner ask of a process group, and whether the answers are right."""
    numbers = torch.arange(5.0, device=device)
    reduced, sent, box = numbers.clone(), numbers.clone(), [{"a": [1, "b"]}]
    distributed.all_reduce(reduced)
    distributed.broadcast(sent, src=0)
    distributed.broadcast_object_list(box, src=0, device=device)
    distributed.barrier(device_ids=[device.index] if device.type == "cuda" else None)
    group = distributed.new_group(backend="gloo")  # as `training.agreement` has it beside NCCL
    flag = torch.ones(1, dtype=torch.int32)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=group, async_op=True).wait()
    right = torch.equal(reduced, numbers) and torch.equal(sent, numbers) and box == [{"a": [1, "b"]}]
    return {"right": right and flag.item() == 1}


def wrapped(steps: PruningSteps) -> PruningSteps:
    """The same with DistributedDataParallel around the network, as in a run of several processes."""
    device = steps.state.world.device
    ids = [device.index] if device.type == "cuda" else None
    steps.state.network = DistributedDataParallel(steps.state.model, device_ids=ids)
    return steps


def weights_after(steps: PruningSteps) -> torch.Tensor:
    """All weights in one vector, after some steps."""
    for _ in range(STEPS):
        steps.take()
    return torch.cat([parameter.detach().flatten() for parameter in steps.state.model.parameters()])


def difference(weights: torch.Tensor, expected: torch.Tensor) -> Figures:
    """How far two networks' weights are from each other, over the largest."""
    relative = float((weights - expected).abs().max() / expected.abs().max())
    return {"relative_difference": relative, "agrees": relative < 1e-3}


def sync_bn(device: torch.device) -> Figures:
    """SyncBN's output and gradient beside BN's; of one process both are the same."""
    torch.manual_seed(0)
    results = []
    for norm in (nn.BatchNorm2d(8), nn.SyncBatchNorm(8)):
        norm.to(device).train()
        images = torch.randn(4, 8, 5, 5, device=device, generator=torch.Generator(device).manual_seed(0))
        images.requires_grad_()
        norm(images).square().mul(images).sum().backward()
        results.append(images.grad)
    return difference(results[1], results[0])
