"""The device of the tests that are marked `device`: RESREP_TEST_DEVICE=cuda makes it a GPU."""

from __future__ import annotations

import os

import torch

DEVICE = torch.device(os.environ.get("RESREP_TEST_DEVICE", "cpu"))
IS_EXACT = DEVICE.type == "cpu"  # a GPU adds up in another order each time
