"""Gradient accumulation: several backward passes for a step, which the pruner counts and penalises once.

    python -m examples.accumulate --accumulate 4

With BN in eval mode, as here, the steps are those of the whole batch (--accumulate 1), but for rounding. Masked rows
shrink by a proximal step, which ends at exactly zero: with BN at rest the plain penalty doesn't get them there in time.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/accumulate.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

parser = digits.options(__doc__, epochs=20)
parser.add_argument("--accumulate", type=int, default=4, help="micro-batches per step")
options = parser.parse_args()
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, proximal=True, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * 22)
for epoch in range(options.epochs):
    model.eval()  # BN keeps its statistics: those of a micro-batch would be noise
    for images, labels in digits.batches(train, epoch):
        for micro_batch in zip(images.chunk(options.accumulate), labels.chunk(options.accumulate), strict=True):
            loss = F.cross_entropy(model(micro_batch[0]), micro_batch[1], reduction="sum") / len(labels)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    norms = pruner.candidate_norms()
    print(f"epoch {epoch}: {pruner.steps} steps, rows' norms {norms.min():.6f} to {norms.max():.6f}")

slim = pruner.convert()
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
