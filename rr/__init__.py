"""ResRep: lossless channel pruning of convolutional networks, in any training loop.

Each name is imported when it is first asked for, so that what needs no torch (settings, a script's --help) doesn't wait
for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rr.config import ResRepConfig, fast_config, paper_config
    from rr.conversion import ConversionError, ConversionReport, compactor_convert, compactor_convert_mi1
    from rr.errors import InputError
    from rr.graph import ChannelGraph, LayerTables, explain
    from rr.parameter_groups import param_groups
    from rr.pruner import ResRepPruner
    from rr.settings import Share
    from rr.weights import load_converted, save_converted

__version__ = "0.2.0"

_HOME = {
    # Settings
    "ResRepConfig": "rr.config",
    "Share": "rr.settings",
    "fast_config": "rr.config",
    "paper_config": "rr.config",
    # Training
    "ResRepPruner": "rr.pruner",
    "param_groups": "rr.parameter_groups",
    # The result, and files
    "ConversionError": "rr.conversion",
    "ConversionReport": "rr.conversion",
    "InputError": "rr.errors",
    "load_converted": "rr.weights",
    "save_converted": "rr.weights",
    # Inspection
    "ChannelGraph": "rr.graph",
    "explain": "rr.graph",
    # Hand-written tables, as the first implementation has them
    "LayerTables": "rr.graph",
    "compactor_convert": "rr.conversion",
    "compactor_convert_mi1": "rr.conversion",
}
__all__ = [
    "ChannelGraph",
    "ConversionError",
    "ConversionReport",
    "InputError",
    "LayerTables",
    "ResRepConfig",
    "ResRepPruner",
    "Share",
    "compactor_convert",
    "compactor_convert_mi1",
    "explain",
    "fast_config",
    "load_converted",
    "paper_config",
    "param_groups",
    "save_converted",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
