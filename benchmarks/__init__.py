"""Scripts that measure what stands in results/, and what reads it there."""
