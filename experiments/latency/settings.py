"""What is measured: a runtime, a type of numbers, threads and a batch. Needs no torch, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

RUNTIMES = ("eager", "compiled", "onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16")
BATCHES = (1, 16, 64)


@dataclass(frozen=True)
class Setting:
    """One way to run a network.

    Attributes:
        runtime: one of `RUNTIMES`.
        precision: one of `PRECISIONS`.
        threads: that it may use.
        batch: images at a time.
    """

    runtime: str
    precision: str
    threads: int
    batch: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.runtime}, {self.precision}, {threads}, batch {self.batch}"
