"""What the method costs in time and memory, and whether the data keeps up.

training_cost.py: a pruning run against plain training; writes results/training_cost.json and .png.
method_cost.py: a step with compactors, a mask update, folding, augmentation; writes results/method_cost.json.
communication.py: what several processes cost a pruning step; writes results/communication.json.
loading.py: images a second of the loader against those of training; writes results/loading.json.
"""
