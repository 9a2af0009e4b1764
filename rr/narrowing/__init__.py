"""Dead channels out of a model while it trains, and out of its optimiser; in the end the compactors as well."""

from rr.narrowing.narrowing import Narrowing

__all__ = ["Narrowing"]
