"""A short run: settings for a few thousand steps or fewer, whose schedule is given in shares of the run's steps.

    python -m examples.fast

The target is met after a tenth of the run, masked rows go to exactly zero at once, and what is dead leaves the
network, so that most of the run trains the narrow one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/fast.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, fast_config

epochs = digits.options(__doc__, epochs=12).parse_args().epochs
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

total_steps, lr = epochs * 22, 0.02
pruner = ResRepPruner(model, train[0][:2], fast_config(flops_target=0.5).for_run(total_steps, lr))
optimizer = torch.optim.SGD(pruner.param_groups(lr, weight_decay=5e-4))
pruner.attach(optimizer)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)
for epoch in range(epochs):
    model.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if pruner.narrow_is_due:
            pruner.narrow()
    numbers = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"epoch {epoch}: loss {loss.item():.6f}, {pruner.unmasked.macs_ratio:.4f} of the MACs, {numbers:,} parameters"
    )

slim = pruner.convert()
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
