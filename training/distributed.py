"""The processes of a run: which one this is, on which device, and the few things that they do together."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import distributed, nn

from rr.errors import InputError, WriteError
from training.roll_call import is_of_connection, lost

WAIT = 1800  # seconds that a process waits for the others


@dataclass(frozen=True)
class World:
    """The place of this process among all.

    `with init_world(...) as world:` leaves the process group at the end. Where the connection to another process is
    lost within, a `ProcessLost` is raised there, which names it.

    Attributes:
        rank: this process, from 0.
        local_rank: its number on this machine.
        size: how many processes there are.
        device: the one that it works on.
        store: where the processes met; None for one alone.
        wait: seconds that one waits for the others.
    """

    rank: int
    local_rank: int
    size: int
    device: torch.device
    store: Any = field(default=None, repr=False, compare=False)
    wait: int = WAIT

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the one that writes files and logs."""
        return self.rank == 0

    def __enter__(self) -> "World":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        try:
            if self.store is not None and is_of_connection(error):
                raise lost(error, self.store, self.rank, self.size) from error
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()


def init_world(device: str = "auto", local_rank: int | None = None, wait: int = WAIT) -> World:
    """Join the processes that torchrun started (NCCL on CUDA, else Gloo), or be the only one.

    Reads the environment variables RANK, WORLD_SIZE and LOCAL_RANK.

    Args:
        device: as in `choose_device`.
        local_rank: serves where LOCAL_RANK isn't set.
        wait: seconds that a process waits for the others before it takes one for lost.

    Raises:
        InputError: if there is no such device.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", local_rank or 0))
    chosen, store = choose_device(device, local_rank if size > 1 else None), None
    if size > 1:
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        store, rank, size = next(distributed.rendezvous("env://", rank, size))
        # torchrun --max-restarts keeps the store, and in it the addresses of processes that are gone.
        store = distributed.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        # NCCL ends the process itself when it has waited; on CUDA the question of `Agreement`, over gloo, comes first.
        timeout = timedelta(seconds=wait + (60 if backend == "nccl" else 0))
        distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    return World(rank, local_rank, size, chosen, store, wait)


def choose_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """The device to work on.

    Args:
        name: a device, or 'auto': cuda, else mps, else cpu.
        local_rank: among several processes, each takes the GPU of its local rank; None for a single process.

    Raises:
        InputError: for a name that isn't a device, or a device that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}' isn't known: choose auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        index = device.index if local_rank is None else local_rank
        if not torch.cuda.is_available() or (index or 0) >= torch.cuda.device_count():
            wanted = "cuda" if index is None else f"cuda:{index}"
            raise InputError(
                f"device {wanted} isn't available, {torch.cuda.device_count()} CUDA devices are: "
                "choose --device auto or cpu, or start fewer processes"
            )
        return torch.device("cuda", torch.cuda.current_device() if index is None else index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps isn't available here: choose --device auto or cpu")
    if device.type not in ("cpu", "mps"):
        raise InputError(f"device '{name}' isn't supported: choose auto, cpu, cuda, cuda:N or mps")
    return device


def barrier(world: World) -> None:
    """Wait until every process is here."""
    if world.size > 1:
        distributed.barrier(device_ids=[world.local_rank] if world.device.type == "cuda" else None)


@contextmanager
def first_rank_first(world: World) -> Iterator[None]:
    """Let rank 0 go through the block alone, then all others: for what the first one prepares on disk.

    After an error in rank 0 the others go on too, and meet the same error.
    """
    if not world.is_first:
        barrier(world)
    try:
        yield
    finally:
        if world.is_first:
            barrier(world)


def all_reduce_sum(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, as a new tensor (one process: the tensor itself)."""
    return _all_reduce(world, tensor, distributed.ReduceOp.SUM)


def all_reduce_min(world: World, tensor: torch.Tensor) -> torch.Tensor:
    """The least value over all processes, as a new tensor (one process: the tensor itself)."""
    return _all_reduce(world, tensor, distributed.ReduceOp.MIN)


def _all_reduce(world: World, tensor: torch.Tensor, operation: Any) -> torch.Tensor:
    if world.size > 1:
        tensor = tensor.clone()
        distributed.all_reduce(tensor, operation)
    return tensor


def broadcast_buffers(world: World, model: nn.Module) -> None:
    """Give every process rank 0's buffers (BN statistics, masks): each has seen only its own part of the data."""
    if world.size > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, src=0)


def broadcast_object(world: World, value: Any) -> Any:
    """Rank 0's value, on every process."""
    if world.size == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=world.device)
    return box[0]


def of_first_rank(world: World, function: Callable[[], Any]) -> Any:
    """What a call on rank 0 returns, on every process.

    Raises:
        InputError, WriteError: on every process, if the call raises one.
    """
    value = error = None
    if world.is_first:
        try:
            value = function()
        except (InputError, WriteError) as raised:
            error = raised
    value, error = broadcast_object(world, (value, error))
    if error is not None:
        raise error
    return value
