"""What the oldest torch that is asked for can't do: a network is refused with a line, or less of it is pruned."""

from __future__ import annotations

import pytest
import torch

IS_OLD = torch.torch_version.TorchVersion(torch.__version__) < (2, 8)


def fails_on_old_torch(why: str) -> pytest.MarkDecorator:
    """The mark of a test, or a case of it, that torch 2.6 and 2.7 fail, and must fail: else the mark is to go."""
    return pytest.mark.xfail(IS_OLD, reason=f"torch {torch.__version__}: {why}", strict=True)
