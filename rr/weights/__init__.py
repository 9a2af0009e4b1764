"""Weights on disk: formats, loading, a full network made as narrow as its converted file. Nothing is traced here."""

from rr.weights.arrays import WeightFile
from rr.weights.card import NetworkCard
from rr.weights.channel_counts import count_channels
from rr.weights.constructors import build_named
from rr.weights.formats import read_weights
from rr.weights.hdf5 import read_hdf5, save_hdf5
from rr.weights.loading import load_start, load_strict
from rr.weights.narrow_build import fit_shapes, left_of_norm
from rr.weights.networks import (
    converted_in,
    load_converted,
    load_network,
    network_in,
    save_converted,
    widths_of,
)
from rr.weights.stand_ins import Constant, Gone
from rr.weights.torch_files import read_pth, save_pth

__all__ = [
    "Constant",
    "Gone",
    "NetworkCard",
    "WeightFile",
    "build_named",
    "converted_in",
    "count_channels",
    "fit_shapes",
    "left_of_norm",
    "load_converted",
    "load_network",
    "load_start",
    "load_strict",
    "network_in",
    "read_hdf5",
    "read_pth",
    "read_weights",
    "save_converted",
    "save_hdf5",
    "save_pth",
    "widths_of",
]
