"""Pruned networks in files that need nothing of this library: `.safetensors` with a card, and `.pt2`."""

from rr.export.program import exported_program, save_program
from rr.export.pruned import load_pruned, save_pruned

__all__ = ["exported_program", "load_pruned", "save_program", "save_pruned"]
