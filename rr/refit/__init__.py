"""Pruning without training: channels chosen by what a refit would lose, and the refit."""

from rr.refit.one_shot import RefitReport, prune
from rr.refit.refitting import LayerRefit
from rr.refit.settings import RefitConfig

__all__ = ["LayerRefit", "RefitConfig", "RefitReport", "prune"]
