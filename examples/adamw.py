"""AdamW with the user's own parameter groups, built as if there were no pruner, but after it.

    python -m examples.adamw

Adam moves an element by about its learning rate per step, whatever the penalty: for rows to get from 1 to 0, the sum of
the learning rates over the run must be well over 1. Compactors must not have weight decay, so they go with the biases.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/adamw.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

epochs = digits.options(__doc__, epochs=20).parse_args().epochs
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, **digits.SHORT_RUN))
parameters = dict(model.named_parameters())  # the compactors are among them
decayed = [name for name, parameter in parameters.items() if parameter.dim() > 1 and "compactor" not in name]
groups = [
    {"params": [parameters[name] for name in decayed], "weight_decay": 0.05},
    {"params": [parameters[name] for name in parameters if name not in decayed], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW(groups, lr=0.01)
pruner.attach(optimizer)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 22)
for epoch in range(epochs):
    model.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.6f}, {pruner.unmasked.macs_ratio:.4f} of the MACs not masked")

slim = pruner.convert()
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
