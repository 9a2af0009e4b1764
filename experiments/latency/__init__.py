"""How long a network takes before and after pruning, in several runtimes: what `tools/latency.py` does.

layers.py: where the time went, by layer. tables.py: CSV, text and plot. measuring.py: all of it, in order. How a
network is timed is the library's (`rr/latency/`).
"""
