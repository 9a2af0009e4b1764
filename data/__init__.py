"""Data by name: `load_data("cifar10").train_batches(epoch, batch_size=64, seed=0, device=device)`.

Everything is stateless: the order of an epoch comes from (seed, epoch), the augmentation of an image from the seed, the
epoch and its place there. Batches are therefore the same for any number of processes or workers, and after resuming.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rr.lazy import lazy_exports

if TYPE_CHECKING:
    from data.generated import SyntheticSize
    from data.names import dataset_names
    from data.registry import load_data
    from data.source import Batch, Data

__getattr__, __dir__ = lazy_exports(__name__, __file__)

__all__ = ["Batch", "Data", "SyntheticSize", "dataset_names", "load_data"]
