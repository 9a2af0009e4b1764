"""A network that gets narrower while it trains: dead channels leave it, and its optimiser, between two steps.

    python -m examples.narrow

An average of the weights follows. Masked rows shrink by proximal steps here, so they are at exactly zero long before
the learning rate is, and can go; the penalty's gradient would keep them oscillating around it. With 'full', as here,
compactors are folded into their convolutions while the network trains, and are gone when nothing more is to die; 'rows'
leaves convolutions their own outputs and changes nothing at all in the training function.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/narrow.py`

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples import digits
from rr import ResRepPruner, paper_config

epochs = digits.options(__doc__, epochs=20).parse_args().epochs
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

settings = paper_config(flops_target=0.5, narrow="full", proximal=True, **digits.SHORT_RUN)
pruner = ResRepPruner(model, train[0][:2], settings)
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95), use_buffers=True)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 22)
for epoch in range(epochs):
    model.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        scheduler.step()
    gone = pruner.narrow(also=[average.module])  # with DistributedDataParallel: wrap the model again if any are gone
    numbers = sum(parameter.numel() for parameter in model.parameters())
    print(f"epoch {epoch}: loss {loss.item():.6f}, {gone} channels gone, {numbers:,} parameters left")

print(f"average: accuracy {digits.accuracy(average, test):.2%}")
slim = pruner.convert()
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
