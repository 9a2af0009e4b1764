"""Pruned networks in files that need nothing of this library, and in the formats of other runtimes."""

from rr.export.checking import ExportCheck, check_export
from rr.export.program import exported_program, save_program
from rr.export.pruned import load_pruned, save_pruned

__all__ = ["ExportCheck", "check_export", "exported_program", "load_pruned", "save_program", "save_pruned"]
