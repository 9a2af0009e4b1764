"""How long a network takes beside the full one, and the share of the MACs that gives a share of that time.

settings.py: where time is measured. engines.py: a network in each runtime, ready to be called. rounds.py: several calls
timed in turn. onnx_files.py: a network as ONNX at many widths. stopwatch.py: two networks timed against each other.
search.py: the bisection. goal.py: a target of time, and what was found for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rr.lazy import lazy_exports

if TYPE_CHECKING:
    from rr.latency.goal import Found, LatencyGoal, LatencyReport, LatencySearch
    from rr.latency.settings import Timing
    from rr.latency.stopwatch import Stopwatch, TimeShares

__getattr__, __dir__ = lazy_exports(__name__, __file__)

__all__ = ["Found", "LatencyGoal", "LatencyReport", "LatencySearch", "Stopwatch", "TimeShares", "Timing"]
