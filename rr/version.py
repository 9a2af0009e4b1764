"""The package's version: what a pruned network's file says of the program that wrote it."""

__version__ = "0.2.0"
