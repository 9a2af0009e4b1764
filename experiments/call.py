"""How a script was called: what a run needs of the command line besides its settings. Nothing here needs torch."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Call:
    """How a script was called.

    Attributes:
        conti_or_fs: 'continue', 'fs' (from scratch) or None, as the user chose.
        local_rank: what a launcher passed on the command line, for `init_world`.
        script: the script's file, which further processes are started with; None: it starts none, and chooses nothing
            by timing.
        arguments: its command line.
        typed: the settings that the command line gives itself.
        is_papers: whether the settings are the paper's, whose precision stays as it is.
    """

    conti_or_fs: str | None = None
    local_rank: int | None = None
    script: str | None = None
    arguments: tuple[str, ...] = ()
    typed: frozenset[str] = frozenset()
    is_papers: bool = True

    @property
    def is_launched(self) -> bool:
        """Whether a launcher (torchrun, or this script as rank 0) has started this process among others."""
        return "WORLD_SIZE" in os.environ
