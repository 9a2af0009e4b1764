"""ResRep: lossless channel pruning of convolutional networks, in any training loop."""

from rr.compactors import Compactor, find_compactors, insert_compactors, remove_compactors
from rr.config import ResRepConfig
from rr.convert import ConversionReport, convert, zero_dead_rows
from rr.graph import ChannelGraph
from rr.masks import select_forgotten
from rr.proof import ConversionError
from rr.pruner import ResRepPruner, param_groups
from rr.recipes import fast_config
from rr.weights import load_converted, save_converted

__all__ = [
    "ChannelGraph",
    "Compactor",
    "ConversionError",
    "ConversionReport",
    "ResRepConfig",
    "ResRepPruner",
    "convert",
    "fast_config",
    "find_compactors",
    "insert_compactors",
    "load_converted",
    "param_groups",
    "remove_compactors",
    "save_converted",
    "select_forgotten",
    "zero_dead_rows",
]
