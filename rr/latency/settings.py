"""Where a network's time is measured: a runtime, a type of numbers, threads, a batch. Needs no torch, so `--help` is
quick."""

from __future__ import annotations

from dataclasses import dataclass

from rr.errors import InputError
from rr.settings import check_types

RUNTIMES = ("eager", "compiled", "onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16")
BATCHES = (1, 16, 64)


@dataclass(frozen=True)
class Timing:
    """One way to run a network on the CPU, in which its time is measured.

    Attributes:
        runtime: 'eager' or 'compiled' (torch), 'onnxruntime' or 'openvino' (`pip install "resrep[export]"`). With
            'compiled', all that this process has compiled is compiled again (`torch.compiler.reset`).
        precision: 'float32' or 'bfloat16'.
        threads: that it may use.
        batch: images at a time.

    Raises:
        InputError: for a value that can't be.
    """

    runtime: str = "eager"
    precision: str = "float32"
    threads: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        for name, choices in (("runtime", RUNTIMES), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} is {getattr(self, name)!r}: choose from {', '.join(choices)}")
        for name in ("threads", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.runtime}, {self.precision}, {threads}, batch {self.batch}"
