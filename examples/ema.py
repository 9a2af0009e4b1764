"""An exponential moving average of the weights, and a narrow network of that instead of the last step's weights.

    python -m examples.ema

The average is a copy of the model, compactors included, so it converts like the model. Its rows lag behind: those that
are at 0 in the model are still a little over it in the average, and have to be set to 0 there as well.
"""

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from examples import digits
from rr import ResRepConfig, ResRepPruner, convert, zero_dead_rows

epochs = digits.options(__doc__, epochs=20).parse_args().epochs
train, test = digits.load_data()
model = digits.trained_network(train)
before = digits.accuracy(model, test)

pruner = ResRepPruner(model, train[0][:2], ResRepConfig(flops_target=0.5, **digits.SHORT_RUN))
optimizer = torch.optim.SGD(pruner.param_groups(lr=0.05))
pruner.attach(optimizer)

average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95), use_buffers=True)  # BN statistics as well
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
    print(f"epoch {epoch}: loss {loss.item():.6f}, {pruner.masked_macs_ratio:.4f} of the MACs not masked")

_, lagging = convert(average.module, pruner.graph, train[0][:2])
print(f"the average as it is: {lagging.macs_ratio:.4f} of the MACs; accuracy {digits.accuracy(average, test):.2%}")
zero_dead_rows(average.module, pruner.graph, pruner.remaining_alive())
slim, report = convert(average.module, pruner.graph, train[0][:2])
digits.show(report, before, digits.accuracy(average, test), digits.accuracy(slim, test))
