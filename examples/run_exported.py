"""Run a network that `examples/export.py` wrote: nothing of the project is imported here.

python examples/run_exported.py slim.pt2
"""

import sys
from pathlib import Path

if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
    sys.exit("give a file that examples/export.py wrote: python examples/run_exported.py slim.pt2")

import torch
from sklearn.datasets import load_digits

network = torch.export.load(sys.argv[1]).module()
source = load_digits()
images = torch.from_numpy(source.images[2::5]).float().div(16)[:, None]  # the test images, [360, 1, 8, 8]
labels = torch.from_numpy(source.target[2::5])
for part in (slice(0, 1), slice(None)):
    right = (network(images[part]).argmax(1) == labels[part]).float().mean()
    print(f"accuracy: {right:.2%} of {len(labels[part])} images")
