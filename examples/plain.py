"""A plain loop, SGD and a schedule: the paper's own setting, each kind of parameter in a group with its own options.

python -m examples.plain
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/plain.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

epochs = digits.options(__doc__, epochs=20).parse_args().epochs
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

# Compactors are in from here on; the model computes what it did. The hooks on the optimiser do the rest.
pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05, momentum=0.9, weight_decay=1e-4))
pruner.attach(optimizer)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
    optimizer, epochs * 22
)  # to 0: rows come to rest only at the end
for epoch in range(epochs):
    model.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.6f}, {pruner.unmasked.macs_ratio:.4f} of the MACs not masked")

slim = pruner.convert()  # a plain network without BN or compactors, proven equal
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
