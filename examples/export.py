"""The pruned network as a file that runs anywhere, without its Python class and without this project.

python -m examples.export slim.pt2
python examples/run_exported.py slim.pt2
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the checkout, for `python examples/export.py`

import torch
import torch.nn.functional as F

from examples import digits
from rr import ResRepPruner, paper_config

parser = digits.options(__doc__, epochs=20)
parser.add_argument("file", type=Path, help="the file to write")
options = parser.parse_args()
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], paper_config(flops_target=0.5, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)

scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * 22)
for epoch in range(options.epochs):
    model.train()
    for images, labels in digits.batches(train, epoch):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()

slim = pruner.convert()
digits.show(pruner.report, before, digits.accuracy(model, test), digits.accuracy(slim, test))
any_batch = ({0: torch.export.Dim("batch")},)
torch.export.save(torch.export.export(slim, (test[0],), dynamic_shapes=any_batch), options.file)
