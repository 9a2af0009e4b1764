"""What benchmarks/gpu.py is made of: its parts, each some minutes of a GPU, with a tiny form for the CPU.

device_tests.py: the tests that a device can fail. precision.py, compiled.py: kinds of arithmetic and of launching
operations, on the same steps. steps.py: milliseconds of a training step. loading.py: images a second. processes.py:
NCCL and SyncBN. paper_run.py: the paper's whole run of ResNet-56.
"""

from benchmarks.gpu_parts.parts import PARTS, Part, run_part
from benchmarks.gpu_parts.setting import LEFT, Setting

__all__ = ["LEFT", "PARTS", "Part", "Setting", "run_part"]
