"""Scripts that measure what is in results/, a folder per question, and code that reads it there."""
