"""How long a network takes before and after pruning, in several runtimes: what `tools/latency.py` does.

settings.py: what is measured. engines.py: a network in each runtime, ready to be called. rounds.py: several calls timed
in turn. layers.py: where the time went, by layer. tables.py: CSV, text and plot. measuring.py: all of it, in order.
"""
