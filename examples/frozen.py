"""Frozen layers: they stay as they are, and out of the optimiser.

    python -m examples.frozen

Freeze before the pruner is built: it makes compactors that learn, even behind a frozen layer, whose channels are then
pruned without its weights being changed. Layers that are to keep all of their channels are left out with `exclude`.

A conversion folds BN (and the compactor) into every convolution, frozen or not: the narrow network's weights are other
numbers for the same function. What was frozen still is, if training goes on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/frozen.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

epochs = digits.options(__doc__, epochs=20).parse_args().epochs
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

model.stem.requires_grad_(False)
model.blocks[0].requires_grad_(False)
frozen = {name: parameter.clone() for name, parameter in model.named_parameters() if not parameter.requires_grad}

settings = paper_config(flops_target=0.5, exclude=("stem*",), **digits.SHORT_RUN)  # blocks[0] is pruned all the same
pruner = ResRepPruner(model, train[0][:2], settings)
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))  # leaves out what is frozen
pruner.attach(optimizer)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 22)
for epoch in range(epochs):
    model.train()
    model.stem.eval()  # BN's statistics aren't parameters: only eval mode keeps them
    model.blocks[0].eval()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.6f}, {pruner.unmasked.macs_ratio:.4f} of the MACs not masked")

unchanged = sum(torch.equal(model.get_parameter(name), value) for name, value in frozen.items())
print(f"frozen: {unchanged} of {len(frozen)} tensors are what they were")
slim = pruner.convert()
print(f"widths: stem {slim.stem[0].out_channels}, blocks {[block.conv1.out_channels for block in slim.blocks]}")
trained = sorted({name.split(".")[0] for name, parameter in slim.named_parameters() if parameter.requires_grad})
print(f"converted, these would go on learning: {trained}")
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
