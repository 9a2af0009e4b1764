"""Scripts that measure what stands in results/, a folder per question, and what reads it there."""
