"""How far the channel graph reaches: which networks it traces, prunes and converts without a wrong output.

run.py examines every network of the lists (networks.py); it writes results/coverage.json and
results/coverage_seconds.png.
"""
