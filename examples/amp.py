"""Mixed precision with a gradient scaler and clipped gradients: float16 on a GPU, bfloat16 on the CPU.

    python -m examples.amp

The penalty is added in true units, whatever the scale is, and after the clipping, so it isn't clipped with the rest.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/amp.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

parser = digits.options(__doc__, epochs=20)
parser.add_argument("--init-scale", type=float, default=2.0**16, help="the gradient scaler's first scale")
options = parser.parse_args()
device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.bfloat16)
train, test = digits.load_data(device)
model = digits.trained_network(train)
before = digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)

scaler = torch.amp.GradScaler(device, init_scale=options.init_scale)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * 22)
for epoch in range(options.epochs):
    model.train()
    for images, labels in digits.batches(train, epoch):
        optimizer.zero_grad()
        with torch.autocast(device, dtype):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        scaler.step(optimizer)  # a step that it skips for infinite gradients isn't counted by the pruner
        scaler.update()
        scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.6f}, {pruner.unmasked.macs_ratio:.4f} of the MACs not masked")

slim = pruner.convert()
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
