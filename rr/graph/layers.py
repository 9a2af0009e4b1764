"""What a network's channels belong to: layers, groups of units, and the places for compactors. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from torch import Tensor


class LayerKind(Enum):
    """What a layer does with channels."""

    CONV = "conv"
    TRANSPOSED = "transposed"
    LINEAR = "linear"
    DEPTHWISE = "depthwise"  # a convolution with a group for each input channel
    GROUPED = "grouped"  # a convolution of several groups, of several channels each
    ALIKE = "alike"  # the same, where all groups keep the same of their inputs and outputs
    NORM = "norm"  # a batch norm
    AFFINE = "affine"  # a module that ends in a scale and a shift of its own (`rr.graph.affine`): its vectors
    VECTOR = "vector"  # a parameter or buffer with a number per channel (PReLU's, layer scale)
    COLUMNS = "columns"  # a parameter that reads channels with its columns, and whose rows stay (a recurrent layer's)
    CHOICE = "choice"  # a buffer of places, by which channels are chosen (`x[:, self.places]`)
    NEIGHBOURS = "neighbours"  # a local response norm: each channel by those near it
    MEAN = "mean"  # over channels, in a module whose scale and `eps` can change with their number (GRN)
    PRODUCT = "product"  # of activations, of a channel with itself (`torch.bmm`): no parameters, but MACs

    @property
    def makes_channels(self) -> bool:
        """Whether its outputs are new channels, each made of all inputs."""
        return self in (LayerKind.CONV, LayerKind.TRANSPOSED, LayerKind.LINEAR, LayerKind.ALIKE)

    @property
    def reads_all(self) -> bool:
        """Whether each of its outputs is made of all inputs."""
        return self.makes_channels or self is LayerKind.COLUMNS

    @property
    def is_module(self) -> bool:
        """Whether it is a module of the model; others are a parameter of one, or an operation."""
        others = (LayerKind.VECTOR, LayerKind.COLUMNS, LayerKind.CHOICE, LayerKind.MEAN, LayerKind.PRODUCT)
        return self not in others

    @property
    def has_macs(self) -> bool:
        """Whether widths change what it costs."""
        return self.has_width or self in (LayerKind.COLUMNS, LayerKind.PRODUCT)

    @property
    def is_by_group(self) -> bool:
        """Whether its groups go as a whole, inputs and outputs."""
        return self in (LayerKind.DEPTHWISE, LayerKind.GROUPED)

    @property
    def has_width(self) -> bool:
        """Whether it is a convolution or a linear layer; the others have the channels of these."""
        return self.makes_channels or self.is_by_group


@dataclass
class LayerCall:
    """One call of a layer, with the ids of its channels (`rr.graph.flow`).

    Attributes:
        name: the module's name in the model; for a vector, columns and a choice the parameter's or buffer's; for a
            product or a mean that of the module that runs it and the operation's.
        kind: what it does with channels.
        node: the name of its operation in the trace.
        out_ids: [out_channels], the id of each output channel.
        in_ids: [in_channels or in_features], the id of each input column, of the first group alone where groups are
            alike; None for a norm, a vector, a mean or a product.
        macs_each: multiply-accumulates per example and live (input, output) pair; for layers by group and products, per
            live output channel; 0 for a layer that only training runs.
        dim: for a vector, the dimension of the parameter along which its channels lie; for columns, that of the inputs.
        places: [out_channels], for a choice the place of each among the inputs.
    """

    name: str
    kind: LayerKind
    node: str
    out_ids: np.ndarray
    in_ids: np.ndarray | None
    macs_each: int = 0
    dim: int = 0
    places: np.ndarray | None = None


@dataclass(frozen=True)
class Layer:
    """A layer of the network with the unit of each of its channels.

    Attributes:
        name, kind, dim, places: as in `LayerCall`.
        macs_each: as in `LayerCall`, of all calls together.
        nodes: its operations in the trace, one for each call.
        out_units: [out_channels].
        in_units: [in_channels], for a linear layer [in_features]; None for a norm, a vector or a product.
        norm: the BN that directly follows (and nothing else does), None where there is none.
    """

    name: str
    kind: LayerKind
    nodes: tuple[str, ...]
    out_units: np.ndarray
    in_units: np.ndarray | None
    macs_each: int
    dim: int = 0
    norm: str | None = None
    places: np.ndarray | None = None

    @property
    def output_dim(self) -> int:
        """The dimension of the outputs in the weight of a convolution or linear layer; the inputs have the other."""
        return 1 if self.kind is LayerKind.TRANSPOSED else 0

    @property
    def channel_dim(self) -> int:
        """The dimension of the channels in the layer's output: 1 ([N, C, ...]), or -1 for a linear layer."""
        return -1 if self.kind is LayerKind.LINEAR else 1


@dataclass(frozen=True)
class Sum:
    """An operation that adds channels up: where nothing of a dead one arrives, it is the same without that one.

    Attributes:
        node: the operation.
        source: which of its inputs.
        channels: in that input's shape, the id of each element's channel; once they are numbered, the unit (-1 for a
            channel that no layer of the graph has).
    """

    node: str
    source: str
    channels: Tensor


@dataclass(frozen=True)
class OverChannels:
    """A mean or an extreme over channels of which some may go: the layers that read it have to be told.

    Attributes:
        operation: "mean", "max" or "min".
        readers: the layers, by name.
        channels: [n], the id of the channel of each value that it is made of; once they are numbered, the units.
        result: the id of what comes out; once they are numbered, the unit.
    """

    operation: str
    readers: tuple[str, ...]
    channels: np.ndarray
    result: int


@dataclass(frozen=True)
class Sizes:
    """Numbers on a module by which its forward cuts channels into parts (`x.split(self.sizes, 1)`), or counts them.

    Attributes:
        module: the module's name.
        attribute: its attribute, a list or a tuple of numbers, or a number.
        parts: for each number, the id of each of the part's channels; once they are numbered, the units.
    """

    module: str
    attribute: str
    parts: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Site:
    """A place for a compactor: behind `layer`, and behind its BN where one directly follows.

    Attributes:
        host: the module behind which the compactor acts (before which, for the activation in a BN module).
        layer: the layer's name.
        nodes: that place in the trace.
        units: [D], one per row of the compactor.
        groups: 1 for a dense compactor, the layer's groups for a block-diagonal one, D for a diagonal one.
    """

    host: str
    layer: str
    nodes: tuple[str, ...]
    units: np.ndarray
    groups: int = 1

    @property
    def is_diagonal(self) -> bool:
        """Whether its compactor keeps every channel apart."""
        return self.groups == len(self.units)


@dataclass(frozen=True)
class Group:
    """Units that look alike to every layer: all rows of one convolution, say. Its width is how many are alive.

    Attributes:
        units: in the order of their channels.
        producers: the layers that make their channels.
    """

    units: np.ndarray
    producers: tuple[str, ...]
