"""Stop at any epoch, and go on in another process as if nothing had happened.

    python -m examples.resume checkpoint.pth --stop-after 10
    python -m examples.resume checkpoint.pth

Masks and compactors are in the model's state dict; the pruner's own holds the number of steps. The pruner is built
before anything is loaded, since it puts the compactors in.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/resume.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

parser = digits.options(__doc__, epochs=20)
parser.add_argument("checkpoint", type=Path, help="written after each epoch; where there is one, the run goes on")
parser.add_argument("--stop-after", type=int, help="end after this many epochs, as if the process were killed")
options = parser.parse_args()
train, test = digits.load_data()
saved = torch.load(options.checkpoint, weights_only=True) if options.checkpoint.is_file() else None
model = digits.Net() if saved else digits.trained_network(train)
before = saved["before"] if saved else digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * 22)
stateful = {"pruner": pruner, "model": model, "optimizer": optimizer, "scheduler": scheduler}  # loaded in this order
if saved:
    for name, item in stateful.items():
        item.load_state_dict(saved[name])
for epoch in range(saved["epochs"] if saved else 0, options.stop_after or options.epochs):
    model.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.6f}, {pruner.unmasked.macs_ratio:.4f} of the MACs not masked")
    states = {name: item.state_dict() for name, item in stateful.items()}
    torch.save({**states, "epochs": epoch + 1, "before": before}, options.checkpoint)

slim = pruner.convert()
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
