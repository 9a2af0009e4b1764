"""From a model with compactors to a plain, narrow one: folded, proven equal, and rehearsed before any training."""

from rr.conversion.alive import alive_units
from rr.conversion.converter import convert
from rr.conversion.folding import fold, with_unfoldable
from rr.conversion.original import compactor_convert, compactor_convert_mi1
from rr.conversion.proof import ConversionError
from rr.conversion.rehearsal import rehearse, rehearse_vanishing
from rr.conversion.report import ConversionReport, report_of

__all__ = [
    "ConversionError",
    "ConversionReport",
    "alive_units",
    "compactor_convert",
    "compactor_convert_mi1",
    "convert",
    "fold",
    "rehearse",
    "rehearse_vanishing",
    "report_of",
    "with_unfoldable",
]
