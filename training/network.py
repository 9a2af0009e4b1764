"""The network that a run's data asks for."""

from collections.abc import Callable
from functools import partial

from torch import nn

from base_model import build_model
from data import Data


def network_builder(arch: str, data: Data) -> Callable[..., nn.Module]:
    """`build_model` for this network and this data's classes, channels and image size; takes `widths` and `folded`."""
    return partial(
        build_model, arch, num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size
    )
