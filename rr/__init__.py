"""ResRep: lossless channel pruning of convolutional networks, in any training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rr.lazy import lazy_exports
from rr.version import __version__ as __version__

if TYPE_CHECKING:
    # Settings
    from rr.config import ResRepConfig, cut_config, fast_config, paper_config
    from rr.settings import Share

    # Without training
    from rr.latency import LatencyReport, Timing
    from rr.refit import RefitConfig, RefitReport, cut_at_once, prune

    # Training
    from rr.parameter_groups import param_groups
    from rr.pruner import ResRepPruner

    # The result, and files
    from rr.conversion import ConversionError, ConversionReport
    from rr.errors import InputError
    from rr.export import load_pruned, save_pruned
    from rr.weights import NetworkCard, load_converted, save_converted

    # Inspection
    from rr.graph import ChannelGraph, explain

    # Hand-written tables, as the first implementation has them
    from rr.conversion import compactor_convert, compactor_convert_mi1
    from rr.graph import LayerTables

__getattr__, __dir__ = lazy_exports(__name__, __file__)

__all__ = [
    "ChannelGraph",
    "ConversionError",
    "ConversionReport",
    "InputError",
    "LatencyReport",
    "LayerTables",
    "NetworkCard",
    "RefitConfig",
    "RefitReport",
    "ResRepConfig",
    "ResRepPruner",
    "Share",
    "Timing",
    "compactor_convert",
    "compactor_convert_mi1",
    "cut_at_once",
    "cut_config",
    "explain",
    "fast_config",
    "load_converted",
    "load_pruned",
    "paper_config",
    "param_groups",
    "prune",
    "save_converted",
    "save_pruned",
]
