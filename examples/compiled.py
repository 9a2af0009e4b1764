"""torch.compile: compile the model once its compactors are in, and convert the original module.

    python -m examples.compiled                       # half a minute, most of it compilation
    python -m examples.compiled --backend aot_eager   # without a C++ compiler

What was compiled before the pruner was built is compiled again automatically.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/compiled.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

parser = digits.options(__doc__, epochs=20)
parser.add_argument("--backend", default="inductor", help="torch.compile's (default: %(default)s)")
options = parser.parse_args()
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)

compiled = torch.compile(model, backend=options.backend)  # shares its parameters with the model
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * 22)
for epoch in range(options.epochs):
    compiled.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(compiled(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.6f}, {pruner.unmasked.macs_ratio:.4f} of the MACs not masked")

slim = pruner.convert()  # of the original module; `torch.compile(slim)` is a compilation of its own
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
