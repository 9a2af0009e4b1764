"""Damaged and hostile files, and the readers that must refuse them or read them: what benchmarks/fuzz.py is made of."""

from benchmarks.fuzzing.mutations import mutated_bytes, mutated_value
from benchmarks.fuzzing.readers import READERS, Reader, Silent

__all__ = ["READERS", "Reader", "Silent", "mutated_bytes", "mutated_value"]
