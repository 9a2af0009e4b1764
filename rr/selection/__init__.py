"""Which channels are to go: how much each is worth, which are masked next, and how targets tighten."""

from rr.selection.forgetting import select_forgotten
from rr.selection.importance import TaylorScores
from rr.selection.mask_selection import MaskSelection

__all__ = ["MaskSelection", "TaylorScores", "select_forgotten"]
