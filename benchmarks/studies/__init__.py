"""Comparisons of accuracy: several ways of training one network, for the same epochs on the same batches.

short_schedules.py: the ways to 47% of the MACs, this project's and others; writes results/short_schedules.json and .png
    (results/short_schedules_src56.json and .png for src56).
fast_settings.py: what each setting of `--fast` does; writes results/fast_settings.json and .png.
narrowing_accuracy.py: what narrowing in mid-run does; writes results/narrowing_accuracy.json and .png.
main.py: a pruned network against its three bars and its rivals, a row of the main table; writes results/main_ROW.json
    and .png (results/main_ROW_rates.json and .png while it looks for learning rates).
prune_now.py: what is left at the cut, without training; writes results/prune_now.json and .png.
gap.py: what brings a pruned network nearer to its base trained on; writes results/gap.json and .png.
rivals.py: trains one run of a way without compactors; writes result.json into that run's folder.
"""
