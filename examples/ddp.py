"""Several processes: the pruner is built on the bare model in each of them, and DistributedDataParallel comes after it.

    torchrun --nproc_per_node=2 -m examples.ddp

Gradients are the same everywhere, and so are compactors; masks are rank 0's. SyncBatchNorm.convert_sync_batchnorm
replaces modules, so it would come before the pruner.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/ddp.py`

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from examples import digits
from rr import ResRepPruner, paper_config

epochs = digits.options(__doc__, epochs=20).parse_args().epochs
device = f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu"
dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank, processes = dist.get_rank(), dist.get_world_size()
train, test = digits.load_data(device)
model = digits.trained_network(train)
before = digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)

network = DistributedDataParallel(model)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 22)
for epoch in range(epochs):
    network.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(network(images[rank::processes]), labels[rank::processes])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

print(f"rank {rank}: loss {loss.item():.6f}, masked units {np.flatnonzero(~pruner.unmasked.alive).tolist()}")
if rank == 0:
    slim = pruner.convert()
    digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
dist.barrier()  # Gloo's threads let go of the last gradients: a process that leaves at once may be aborted by them
dist.destroy_process_group()
