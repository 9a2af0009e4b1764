"""Pruning without training: channels chosen by what a refit would lose, and the refit."""

from rr.refit.beginning import check_can_be_cut, cut_at_once
from rr.refit.cutting import Refit
from rr.refit.one_shot import RefitReport, prune
from rr.refit.refitting import LayerRefit
from rr.refit.settings import RefitConfig

__all__ = ["LayerRefit", "Refit", "RefitConfig", "RefitReport", "check_can_be_cut", "cut_at_once", "prune"]
