"""A run, or runs side by side, as one HTML page that needs nothing beside it."""

from experiments.run_report.page import write_report
from experiments.run_report.reading import RunFiles, read_run

__all__ = ["RunFiles", "read_run", "write_report"]
