"""Memory that a step frees is there for the next one."""

import platform
import subprocess
import sys

import pytest

FAULTS_OF_A_STEP = """
import resource, sys
import numpy as np
from training.allocator import keep_freed_memory

def step():
    kept = [np.ones(megabytes * 2**17) for megabytes in range(1, 24)]
    while kept:
        kept.pop()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1:]:
    assert keep_freed_memory()
for _ in range(3):
    step()
before = faults()
for _ in range(4):
    step()
print((faults() - before) / 4)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_stays() -> None:
    def faults(*arguments: str) -> float:
        command = [sys.executable, "-c", FAULTS_OF_A_STEP, *arguments]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults() > 10_000  # 23 + ... + 1 megabytes in pages of 4096 bytes: 70,000
    assert faults("kept") < 100
