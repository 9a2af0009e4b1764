"""A target of time, as the command lines have it. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from rr.errors import InputError
from rr.latency.settings import RUNTIMES, Timing
from rr.settings import setting
from training.options import check_choices


@dataclass(frozen=True)
class AskedLatency:
    """What share of the full network's time is to be left, and where that is measured.

    Raises:
        InputError: for a value that can't be.
    """

    latency_target: float | None = setting(
        "share of the full network's time to keep, both with BN folded, timed on this machine (nothing else may run "
        "meanwhile) until a share of the MACs is found for it; with a target of MACs that is given too, both hold",
        None,
        topic="latency",
    )
    latency_runtime: str = setting(
        "where it is timed: torch (eager, compiled), onnxruntime, openvino",
        "eager",
        topic="latency",
        choices=RUNTIMES,
        aliases=("runtime",),
    )
    latency_batch: int = setting("images at a time", 1, topic="latency")
    latency_threads: int = setting("threads that the network may use then", 1, topic="latency")

    def __post_init__(self) -> None:
        check_choices(self)
        if self.latency_target is not None and not 0 < self.latency_target < 1:
            raise InputError(
                f"latency_target is {self.latency_target:g}: give a share of the full network's time, over 0 and under "
                "1, 0.5 or 50%"
            )
        for name in ("latency_batch", "latency_threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.latency_target is None and any(getattr(self, f.name) != f.default for f in fields(self)):
            raise InputError("latency_runtime, latency_batch and latency_threads are for a latency_target: give it too")

    @property
    def timing(self) -> Timing:
        """Where it is measured."""
        return Timing(self.latency_runtime, threads=self.latency_threads, batch=self.latency_batch)
